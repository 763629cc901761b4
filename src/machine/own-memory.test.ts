/** Copying the pages of another process's memory, out of it and into it, also when it dies meanwhile. */

import { expect, test } from "bun:test"
import { closeSync, mkdtempSync, openSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { startTicks } from "../lib/process-identity.ts"
import { loadOwnMemory, saveOwnMemory } from "./own-memory.ts"

const posix = resolve(import.meta.dir, "../lib/posix.ts")
const bytes = 8 * 1024 * 1024

/** Maps memory as a clone does, writes what it is told to its first half, and says its digest whenever it is asked. */
const clone = `
  import { dlopen, FFIType, toArrayBuffer } from "bun:ffi"
  import { createMemoryFile } from ${JSON.stringify(posix)}
  const { mmap } = dlopen("libc.so.6", {
    mmap: {
      args: [FFIType.ptr, FFIType.u64, FFIType.i32, FFIType.i32, FFIType.i32, FFIType.i64],
      returns: FFIType.ptr,
    },
  }).symbols
  const fd = createMemoryFile({ name: "bhatti-template", bytes: ${bytes} })
  const memory = new Uint8Array(toArrayBuffer(mmap(null, ${bytes}, 3, 2, fd, 0), 0, ${bytes}))
  memory.fill(Number(process.argv.at(-1)), 0, ${bytes / 2})
  console.log("ready")
  for await (const _ of console) console.log(Bun.hash(memory))
`

async function startClone(fill: number) {
  const child = Bun.spawn([process.execPath, "--eval", clone, `${fill}`], {
    stdin: "pipe",
    stdout: "pipe",
    stderr: "inherit",
  })
  const lines = child.stdout.pipeThrough(new TextDecoderStream()).getReader()
  expect((await lines.read()).value).toBe("ready\n")
  return {
    pid: child.pid,
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

test("what one has written the other has, and an end of either is an error that may be tried again", async () => {
  const directory = mkdtempSync(join(tmpdir(), "bhatti-memory-"))
  const path = join(directory, "memory")
  try {
    await using source = await startClone(7)
    await using target = await startClone(0)
    expect(await target.digest()).not.toBe(await source.digest())
    const checksum = await save(source.pid, path)
    await loadOwnMemory({ pid: target.pid, path, checksum })
    expect(await target.digest()).toBe(await source.digest())

    // Both copies have begun, and go on when nothing is left of the processes.
    const copies = [loadOwnMemory({ pid: target.pid, path, checksum }), save(source.pid, `${path}.2`)]
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
