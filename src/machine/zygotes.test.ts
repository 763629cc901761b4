/** A zygote's start that fails leaves nothing, and the next one does not fail for the same reason. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import type { Template } from "./template-files.ts"
import { Zygotes, type ZygotesOptions, zygotesDirectory } from "./zygotes.ts"

let dataDir = ""
beforeEach(() => {
  dataDir = mkdtempSync("/tmp/bhatti-zygotes-")
})
afterEach(() => rmSync(dataDir, { recursive: true }))

test("what a start has begun is ended and removed, and a library that could not be read is read again", async () => {
  const library = join(dataDir, "library")
  const overlay = join(dataDir, "blank")
  writeFileSync(overlay, "disk")
  const ended: string[] = []
  const starter = {
    network: "none",
    zygoteSlot: () => 1,
    startZygote: () => Promise.reject(new Error("QEMU does not start")),
  }
  const options = {
    ...{ dataDir, library, starter, files: { memory: async () => 0 } },
    connect: async () => ({ close() {} }),
    killIn: async (directory: string) => {
      expect(existsSync(directory)).toBe(true)
      ended.push(directory)
    },
  }
  const zygotes = new Zygotes(options as unknown as ZygotesOptions<{ close(): void }>)
  const start = () => zygotes.start({ id: "t", blankOverlayPath: overlay } as unknown as Template)
  await expect(start()).rejects.toThrow("ENOENT")
  writeFileSync(library, "code")
  await expect(start()).rejects.toThrow("QEMU does not start")
  expect(ended).toHaveLength(2)
  expect(readdirSync(zygotesDirectory(dataDir))).toEqual([])
})
