/** The memory that a process in QEMU's place was given, and what it may have put there instead. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import {
  closeSync,
  fstatSync,
  mkdtempSync,
  openSync,
  readSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createMemoryFile, createPipe, fixMemoryFile, sealMemoryFile } from "../lib/posix.ts"
import { hostBootId, type ProcessIdentity, startTicks } from "../lib/process-identity.ts"
import { descriptors } from "./command-line.ts"
import { makeSharedMemory, openSharedMemory } from "./shared-memory.ts"

const mebibyte = 1024 * 1024
let directory: string
const opened: number[] = []
const running: Bun.Subprocess[] = []

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "bhatti-shared-"))
})

afterEach(async () => {
  for (const child of running.splice(0)) {
    child.kill()
    await child.exited
  }
  for (const fd of opened.splice(0)) closeSync(fd)
  rmSync(directory, { recursive: true })
})

const keep = (fd: number) => {
  opened.push(fd)
  return fd
}

function start(shared: number): ProcessIdentity {
  const unused = keep(openSync("/dev/null", "r+"))
  const handed = Array.from({ length: descriptors.shared }, () => unused)
  const child = Bun.spawn({ cmd: ["sleep", "60"], stdio: [null, null, null, ...handed.slice(3), shared] })
  running.push(child)
  return { pid: child.pid, startTicks: startTicks(child.pid) ?? 0, bootId: hostBootId }
}

test("is the one it was given, and nobody can change its size", () => {
  const fd = keep(makeSharedMemory())
  const found = keep(openSharedMemory(start(fd)))
  writeSync(found, Buffer.from("hello"), 0, 5, 4096)
  const bytes = Buffer.alloc(5)
  readSync(fd, bytes, 0, 5, 4096)
  expect(bytes.toString()).toBe("hello")
  expect(fstatSync(found).size).toBe(2 * mebibyte)
  expect(() => writeSync(found, Buffer.from("x"), 0, 1, 2 * mebibyte)).toThrow()
})

test("anything else in its place is refused", () => {
  const { readFd, writeFd } = createPipe()
  opened.push(readFd, writeFd)
  writeFileSync(join(directory, "file"), Buffer.alloc(2 * mebibyte))
  const sealed = keep(createMemoryFile({ name: "test", bytes: 2 * mebibyte }))
  sealMemoryFile(sealed)
  const larger = keep(createMemoryFile({ name: "test", bytes: 4 * mebibyte }))
  fixMemoryFile(larger)
  const loose = keep(createMemoryFile({ name: "test", bytes: 2 * mebibyte }))
  const file = keep(openSync(join(directory, "file"), "r+"))
  for (const other of [readFd, writeFd, sealed, larger, loose, file])
    expect(() => openSharedMemory(start(other))).toThrow("shares no memory")
})

test("it is not looked for in another process", () => {
  const process = start(keep(makeSharedMemory()))
  expect(() => openSharedMemory({ ...process, startTicks: process.startTicks - 1 })).toThrow("has ended")
  expect(() => openSharedMemory({ ...process, bootId: "another" })).toThrow("has ended")
})
