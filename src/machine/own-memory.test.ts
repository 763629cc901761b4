/** Copying the pages of another process's memory, out of it and into it, also when it dies meanwhile. */

import { expect, test } from "bun:test"
import {
  closeSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { Checksum } from "../lib/checksum.ts"
import { startTicks } from "../lib/process-identity.ts"
import { loadOwnMemory, memoryBaseOf, saveOwnMemory, untouchedMib } from "./own-memory.ts"

const posix = resolve(import.meta.dir, "../lib/posix.ts")
const bytes = 8 * 1024 * 1024

/**
 * Maps memory as a clone does, of a template that has something in its first half, or as a machine that boots does.
 * Writes what it is told to the first three quarters, zeros over some of that, and says its digest whenever it is
 * asked.
 */
const clone = `
  import { dlopen, FFIType, toArrayBuffer } from "bun:ffi"
  import { openSync, writeSync } from "node:fs"
  import { createMemoryFile } from ${JSON.stringify(posix)}
  const { mmap } = dlopen("libc.so.6", {
    mmap: {
      args: [FFIType.ptr, FFIType.u64, FFIType.i32, FFIType.i32, FFIType.i32, FFIType.i64],
      returns: FFIType.ptr,
    },
  }).symbols
  const isEmpty = process.argv.at(-2) === "empty"
  const fd = isEmpty ? openSync("/dev/zero", "r+") : createMemoryFile({ name: "bhatti-template", bytes: ${bytes} })
  if (!isEmpty) writeSync(fd, Buffer.alloc(${bytes / 2}, 5), 0, ${bytes / 2}, 0)
  const memory = new Uint8Array(toArrayBuffer(mmap(null, ${bytes}, 3, 2, fd, 0), 0, ${bytes}))
  const fill = Number(process.argv.at(-1))
  if (fill > 0) {
    memory.fill(fill, 0, ${(bytes * 3) / 4})
    for (const start of [4096 * 3, ${bytes / 4}, ${bytes / 2 - 8192}, ${(bytes * 5) / 8}]) memory.fill(0, start, start + 4096 * 37)
    memory.fill(0, ${bytes - 4096 * 5})
  }
  console.log(fd)
  for await (const _ of console) console.log(Bun.hash(memory))
`

async function startClone(fill: number, base: "template" | "empty" = "template") {
  const child = Bun.spawn([process.execPath, "--eval", clone, base, `${fill}`], {
    stdin: "pipe",
    stdout: "pipe",
    stderr: "inherit",
  })
  const lines = child.stdout.pipeThrough(new TextDecoderStream()).getReader()
  const fd = Number((await lines.read()).value)
  return {
    pid: child.pid,
    base: openSync(`/proc/${child.pid}/fd/${fd}`, "r"),
    async digest() {
      child.stdin.write("\n")
      await child.stdin.flush()
      return (await lines.read()).value
    },
    kill: () => child.kill("SIGKILL"),
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL")
      await child.exited
    },
  }
}

async function save(pid: number, path: string): Promise<string> {
  const fd = openSync(path, "wx", 0o600)
  try {
    return (await saveOwnMemory({ pid, fd })).checksum
  } finally {
    closeSync(fd)
  }
}

/** Counts the process's own pages of the memory that is a template's. */
function ownPages(pid: number): number {
  const maps = readFileSync(`/proc/${pid}/smaps`, "utf8")
  const anonymous = /memfd:bhatti-template[\s\S]*?Anonymous: +(\d+) kB/.exec(maps)?.[1]
  return Number(anonymous) / 4
}

test("pages that an earlier version has saved are read too", async () => {
  const directory = mkdtempSync(join(tmpdir(), "bhatti-memory-"))
  const path = join(directory, "memory")
  try {
    await using target = await startClone(0)
    await using wanted = await startClone(0)
    const header = Buffer.alloc(16 + 8)
    header.write("BHATTIPG")
    for (const [index, value] of [1, 1, 3, 2].entries()) header.writeUInt32LE(value, 8 + index * 4)
    const pages = Buffer.alloc(2 * 4096, 9)
    writeFileSync(path, Buffer.concat([header, pages]))
    const sum = new Checksum()
    sum.add(header)
    sum.add(pages)
    await loadOwnMemory({ pid: target.pid, base: target.base, path, checksum: sum.value() })
    const memory = openSync(`/proc/${wanted.pid}/mem`, "r+")
    const [start] =
      /^[0-9a-f]+(?=-.*memfd:bhatti-template)/m.exec(readFileSync(`/proc/${wanted.pid}/maps`, "utf8")) ?? []
    writeSync(memory, pages, 0, pages.length, Number.parseInt(start ?? "", 16) + 3 * 4096)
    closeSync(memory)
    expect(await target.digest()).toBe(await wanted.digest())
  } finally {
    rmSync(directory, { recursive: true })
  }
}, 30_000)

test("what one has written the other has, and an end of either is an error that may be tried again", async () => {
  const directory = mkdtempSync(join(tmpdir(), "bhatti-memory-"))
  const path = join(directory, "memory")
  try {
    await using source = await startClone(7)
    await using target = await startClone(0)
    expect(await target.digest()).not.toBe(await source.digest())
    const checksum = await save(source.pid, path)
    await loadOwnMemory({ pid: target.pid, base: target.base, path, checksum })
    expect(await target.digest()).toBe(await source.digest())
    // It holds only the places of pages of zeros.
    const zeroPages = 4 * 37 + 5
    expect(statSync(path).size).toBeLessThan((bytes * 3) / 4 - (zeroPages - 5) * 4096 + 1000)
    // And those that are zeros in the template too are nobody's own.
    expect(ownPages(target.pid)).toBe(ownPages(source.pid) - 35 - 37 - 5)

    // Both copies have begun, and go on when nothing is left of the processes.
    const copies = [
      loadOwnMemory({ pid: target.pid, base: target.base, path, checksum }),
      save(source.pid, `${path}.2`),
    ]
    const ended = Promise.allSettled(copies)
    source.kill()
    target.kill()
    for (const { pid } of [source, target]) while (startTicks(pid) !== undefined);
    for (const copy of await ended)
      expect(copy).toMatchObject({ status: "rejected", reason: { code: "unavailable", retryable: true } })
  } finally {
    rmSync(directory, { recursive: true })
  }
}, 30_000)

test("memory without content is saved and put back too, takes each page once, and shows what was never touched", async () => {
  const directory = mkdtempSync(join(tmpdir(), "bhatti-memory-"))
  const path = join(directory, "memory")
  try {
    await using source = await startClone(7, "empty")
    await using target = await startClone(0, "empty")
    for (const { pid } of [source, target]) expect(memoryBaseOf(pid)).toBe("empty")
    expect([await untouchedMib(target.pid), (await untouchedMib(source.pid)) ?? 8]).toEqual([8, 2])
    const checksum = await save(source.pid, path)
    await loadOwnMemory({ pid: target.pid, base: undefined, path, checksum })
    expect(await target.digest()).toBe(await source.digest())
    const smaps = readFileSync(`/proc/${source.pid}/smaps`, "utf8")
    const [, rss, anonymous] = /\/dev\/zero[\s\S]*?Rss: +(\d+)[\s\S]*?Anonymous: +(\d+)/.exec(smaps) ?? []
    expect(rss).toBe(anonymous)
  } finally {
    rmSync(directory, { recursive: true })
  }
}, 30_000)
