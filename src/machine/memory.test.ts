/** A template's memory on its way to disk and back, and that nobody who holds it can change it. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { closeSync, ftruncateSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from "node:fs"
import { join } from "node:path"
import { createMemoryFile } from "../lib/posix.ts"
import { readMemory, writeMemory } from "./memory.ts"

const page = 4096
const bytes = 64 * page
let directory: string
let path: string
let sealed: number
beforeEach(async () => {
  directory = mkdtempSync("/tmp/bhatti-memory-")
  path = join(directory, "memory")
  const source = createMemoryFile({ name: "bhatti-test", bytes })
  writeSync(source, Buffer.alloc(2 * page, "a"), 0, 2 * page, 7 * page)
  writeSync(source, Buffer.from("the last byte"), 0, 13, bytes - 13)
  await writeMemory({ fd: source, bytes, path })
  closeSync(source)
  sealed = await readMemory({ path, bytes })
})
afterEach(() => {
  closeSync(sealed)
  rmSync(directory, { recursive: true, force: true })
})

function content(): Buffer {
  const read = Buffer.alloc(bytes)
  expect(readSync(sealed, read, 0, bytes, 0)).toBe(bytes)
  return read
}

function expected(): Buffer {
  const wanted = Buffer.alloc(bytes)
  wanted.fill("a", 7 * page, 9 * page)
  wanted.write("the last byte", bytes - 13)
  return wanted
}

test("what comes back is what was written, holes and all", () => {
  expect(content().equals(expected())).toBe(true)
})

test("who holds it can neither write it, cut it, make it longer nor punch holes into it", () => {
  const viaPath = `/proc/${process.pid}/fd/${sealed}`
  const again = openSync(viaPath, "r+")
  for (const fd of [sealed, again]) {
    expect(() => writeSync(fd, Buffer.from("x"), 0, 1, 0)).toThrow("EPERM")
    expect(() => ftruncateSync(fd, page)).toThrow("EPERM")
    expect(() => ftruncateSync(fd, bytes + page)).toThrow("EPERM")
  }
  closeSync(again)
  for (const how of ["--punch-hole", "--zero-range", "--collapse-range"]) {
    const { exitCode } = Bun.spawnSync(["fallocate", how, "--offset", "0", "--length", `${page}`, viaPath], {
      stderr: "ignore",
    })
    expect([how, exitCode]).not.toEqual([how, 0])
  }
  expect(content().equals(expected())).toBe(true)
})
