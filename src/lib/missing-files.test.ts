/** Paths that are missing, that lead through a file, and that fail otherwise. */

import { expect, test } from "bun:test"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { exists, readIfReadable, unlessMissing, whenMissing, whenNowhere } from "./missing-files.ts"

test("a missing path is no error, every other failure is", async () => {
  const directory = mkdtempSync("/tmp/bhatti-test-")
  try {
    const file = join(directory, "file")
    writeFileSync(file, "text")
    const missing = join(directory, "missing")
    const through = join(file, "below")
    expect(unlessMissing(() => readFileSync(file, "utf8"))).toBe("text")
    expect(unlessMissing(() => readFileSync(missing))).toBeUndefined()
    expect(() => unlessMissing(() => readFileSync(through))).toThrow("ENOTDIR")
    expect(unlessMissing(() => readFileSync(through), whenNowhere)).toBeUndefined()
    expect(await readFile(missing).catch(whenMissing)).toBeUndefined()
    await expect(readFile(directory).catch(whenNowhere)).rejects.toThrow("EISDIR")
    expect(await exists(file)).toBe(true)
    expect(await exists(missing)).toBe(false)
    await expect(exists(through)).rejects.toThrow("ENOTDIR")
    expect([file, missing, through, directory].map(readIfReadable)).toEqual([
      "text",
      ...Array(3).fill(undefined),
    ])
  } finally {
    rmSync(directory, { recursive: true })
  }
})
