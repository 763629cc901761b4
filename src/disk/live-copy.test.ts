/**
 * Copies of a file that is written to meanwhile, on this host's real filesystem: in the end they are the same, byte for
 * byte.
 */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { closeSync, mkdtempSync, openSync, rmSync, statSync, truncateSync, writeSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import fc from "fast-check"
import { fileChecksum } from "../lib/sparse-file.ts"
import { LiveCopy } from "./live-copy.ts"

const mebibyte = 1024 * 1024
const { signal } = new AbortController()

let directory = ""
let from = ""
let to = ""
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "bhatti-copy-"))
  from = join(directory, "from")
  to = join(directory, "to")
})
afterEach(() => rmSync(directory, { recursive: true }))

function fill(path: string, offset: number, bytes: number, value: number): void {
  const fd = openSync(path, "r+")
  writeSync(fd, Buffer.alloc(bytes, value), 0, bytes, offset)
  closeSync(fd)
}

function make(path: string, bytes: number): void {
  closeSync(openSync(path, "wx"))
  truncateSync(path, bytes)
}

function isSame(): boolean {
  return statSync(from).size === statSync(to).size && Bun.spawnSync(["cmp", from, to]).exitCode === 0
}

const offset = fc.integer({ min: 0, max: 12 * mebibyte })
const length = fc.oneof(fc.integer({ min: 1, max: 4096 }), fc.integer({ min: 1, max: 2 * mebibyte }))
const change = fc.oneof(
  fc.record({
    what: fc.constant("write" as const),
    offset,
    length,
    value: fc.integer({ min: 0, max: 3 }),
  }),
  fc.record({
    what: fc.constant("punch" as const),
    offset,
    length: fc.integer({ min: 1, max: 12 * mebibyte }),
  }),
  fc.record({ what: fc.constant("resize" as const), offset }),
  fc.record({ what: fc.constant("catch up" as const) }),
)

test("after whatever writes, holes and lengths, with and without catching up in between, it is the same", async () => {
  let runs = 0
  await fc.assert(
    fc.asyncProperty(fc.array(change, { maxLength: 25 }), async (changes) => {
      from = join(directory, `from-${runs}`)
      to = join(directory, `to-${runs++}`)
      make(from, 8 * mebibyte)
      const copy = new LiveCopy({ from, to })
      for (const one of changes) {
        if (one.what === "write") fill(from, one.offset, one.length, one.value)
        else if (one.what === "resize") truncateSync(from, one.offset)
        else if (one.what === "catch up") await copy.catchUp({ signal })
        else Bun.spawnSync(["fallocate", "-p", "-o", `${one.offset}`, "-l", `${one.length}`, from])
      }
      expect(await copy.finish({ signal })).toBe(await fileChecksum(from))
      expect(isSame()).toBe(true)
      rmSync(from)
      rmSync(to)
    }),
    { numRuns: 60 },
  )
}, 60_000)

test("what another process writes while it is copied is in it, if nothing is written while it is finished", async () => {
  make(from, 200 * mebibyte)
  for (let at = 0; at < 200; at += 10) fill(from, at * mebibyte, 9 * mebibyte, at)
  const script = `
    const { openSync, writeSync } = require("node:fs")
    const fd = openSync(process.argv[1], "r+")
    console.log("writing")
    for (let round = 0; ; round++) {
      const bytes = Buffer.alloc(1 + (round * 7919) % 300_000, round)
      writeSync(fd, bytes, 0, bytes.length, (round * 15_485_863) % (230 * 1024 * 1024))
    }`
  const copy = new LiveCopy({ from, to })
  for (let round = 0; round < 3; round++) {
    const writer = Bun.spawn([process.execPath, "-e", script, from], { stdout: "pipe", stderr: "ignore" })
    await writer.stdout.getReader().read()
    await copy.catchUp({ signal })
    await copy.catchUp({ signal })
    expect(writer.exitCode).toBeNull()
    writer.kill("SIGKILL")
    await writer.exited
    await copy.finish({ signal })
    expect(isSame()).toBe(true)
  }
}, 60_000)

test("holes are taken over, wherever there was data before", async () => {
  make(from, 40 * mebibyte)
  fill(from, 0, 40 * mebibyte, 1)
  const copy = new LiveCopy({ from, to })
  await copy.catchUp({ signal })
  for (const [at, bytes] of [
    [0, 6 * mebibyte],
    [11 * mebibyte + 5, 14 * mebibyte],
    [35 * mebibyte, 5 * mebibyte],
  ])
    expect(Bun.spawnSync(["fallocate", "-p", "-o", `${at}`, "-l", `${bytes}`, from]).exitCode).toBe(0)
  await copy.finish({ signal })
  expect(isSame()).toBe(true)
})

test("holes stay holes, and what has not changed is not written again", async () => {
  make(from, 100 * mebibyte)
  fill(from, 0, 4096, 1)
  fill(from, 60 * mebibyte, 4096, 2)
  const copy = new LiveCopy({ from, to })
  await copy.catchUp({ signal })
  expect(isSame()).toBe(true)
  expect(statSync(to).blocks * 512).toBeLessThan(mebibyte)
  fill(to, 0, 4096, 9)
  fill(from, 60 * mebibyte, 4096, 3)
  await copy.finish({ signal })
  expect(isSame()).toBe(false)
  fill(from, 0, 4096, 9)
  expect(isSame()).toBe(true)
})

test("it ends when it is told to, with the reason", async () => {
  make(from, 100 * mebibyte)
  fill(from, 0, 90 * mebibyte, 1)
  const controller = new AbortController()
  const copying = new LiveCopy({ from, to }).finish({ signal: controller.signal })
  controller.abort(new Error("not wanted any more"))
  await expect(copying).rejects.toThrow("not wanted any more")
  expect(statSync(to).blocks * 512).toBeLessThan(90 * mebibyte)
})
