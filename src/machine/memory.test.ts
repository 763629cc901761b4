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
let written: string
let checksum: string
beforeEach(async () => {
  directory = mkdtempSync("/tmp/bhatti-memory-")
  path = join(directory, "memory")
  const source = createMemoryFile({ name: "bhatti-test", bytes })
  writeSync(source, Buffer.alloc(2 * page, "a"), 0, 2 * page, 7 * page)
  writeSync(source, Buffer.from("the last byte"), 0, 13, bytes - 13)
  written = await writeMemory({ fd: source, bytes, path })
  closeSync(source)
  const read = await readMemory({ path, bytes })
  sealed = read.fd
  checksum = read.checksum
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
  expect(checksum).toBe(written)
})

test("the checksum tells one byte of the file that was changed, and no hole that was filled", async () => {
  const file = openSync(path, "r+")
  writeSync(file, Buffer.alloc(page), 0, page, 20 * page)
  const filled = await readMemory({ path, bytes })
  writeSync(file, Buffer.from("b"), 0, 1, 8 * page + 5)
  const changed = await readMemory({ path, bytes })
  for (const fd of [file, filled.fd, changed.fd]) closeSync(fd)
  expect(filled.checksum).toBe(written)
  expect(changed.checksum).not.toBe(written)
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
