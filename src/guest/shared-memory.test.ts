/**
 * Files through shared memory from the host's end, against a guest that is played here and a memory file as a machine
 * has.
 */

import { afterEach, beforeEach, describe, expect, test } from "bun:test"
import { closeSync, constants, fstatSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { FakeGuest, failure, type HostFrame } from "../../test/support/fake-guest.ts"
import { createMemoryFile, sealMemoryFile } from "../lib/posix.ts"
import type { Download } from "./files.ts"
import { encodeData, encodeDataAt, encodeEnd, encodeWindow, parseDataAt, wireLimits } from "./frame.ts"
import { type Guest, openGuest } from "./guest.ts"
import { SharedMemory } from "./shared-memory.ts"

const mebibyte = 1024 * 1024
const memoryBytes = 2 * mebibyte
const regionBytes = wireLimits.windowBytes
const pieceBytes = wireLimits.sharedPieceBytesMax
const file = {
  name: "x",
  size: 5,
  mode: "0644",
  type: "file",
  owner: "lohar",
  group: "lohar",
  modified_unix_ms: 1,
}

let directory: string
let fake: FakeGuest
let guest: Guest
let memory: number

const openAgain = (flags: string | number = "r+") => openSync(`/proc/self/fd/${memory}`, flags)

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), "bhatti-shared-"))
  memory = createMemoryFile({ name: "bhatti-test", bytes: memoryBytes })
  await meet(2)
})

afterEach(() => {
  guest.close()
  fake.stop()
  closeSync(memory)
  rmSync(directory, { recursive: true })
})

async function meet(generation: number): Promise<void> {
  guest?.close()
  fake?.stop()
  fake = new FakeGuest(mkdtempSync(join(directory, "guest-")))
  guest = await openGuest({ socketPath: fake.socketPath })
  guest.share(openAgain)
  await fake.greet(generation)
  await guest.waitReady({ deadlineMs: 5000 })
}

function patterned(bytes: number, seed = 1): Buffer {
  const made = Buffer.allocUnsafe(bytes)
  for (let at = 0; at < bytes; at++) made[at] = (at * 7 + (at >> 8) * 13 + seed) & 0xff
  return made
}

function look(offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(length)
  readSync(memory, bytes, 0, length, offset)
  return bytes
}

/** The guest puts bytes into its region and says so. */
function put(stream: number, offset: number, bytes: Uint8Array): void {
  writeSync(memory, bytes, 0, bytes.length, offset)
  fake.send(encodeDataAt(stream, 1, { offset, length: bytes.length }))
}

function extentOf(frame: HostFrame): { offset: number; length: number } {
  expect(frame.type).toBe("data_at")
  const { channel, extent } = parseDataAt(frame.payload)
  expect(channel).toBe(0)
  return extent
}

async function collect(output: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = []
  for await (const bytes of output) chunks.push(bytes)
  return Buffer.concat(chunks)
}

/** A download and where the guest may put it. */
async function beginDownload(): Promise<{
  download: Download
  stream: number
  shared: number | undefined
}> {
  const download = guest.open({ op: "readFile", path: "/x" })
  const { stream, request } = await fake.opened()
  fake.message(stream, { file })
  return { download, stream, shared: request["shared"] as number | undefined }
}

describe("to the guest", () => {
  test("large pieces go round in a region, small files go as before", async () => {
    const upload = guest.open({ op: "writeFile", path: "/x" })
    const { stream } = await fake.opened()
    const sent = patterned(3 * regionBytes + 12_345)
    void upload.write(sent.subarray(0, 100))
    expect((await fake.frame()).type).toBe("data")
    const writing = upload.write(sent.subarray(100))
    const got: Uint8Array[] = []
    for (let bytes = 100; bytes < sent.length; ) {
      const { offset, length } = extentOf(await fake.frame())
      expect(length).toBeLessThanOrEqual(pieceBytes)
      expect(Math.floor(offset / regionBytes)).toBe(Math.floor((offset + length - 1) / regionBytes))
      expect(offset + length).toBeLessThanOrEqual(memoryBytes / 2)
      got.push(look(offset, length))
      bytes += length
      fake.send(encodeWindow(stream, length))
    }
    await writing
    expect(Buffer.concat(got).equals(sent.subarray(100))).toBe(true)

    void upload.write(Buffer.from("the rest keeps its order"))
    const { offset, length } = extentOf(await fake.frame())
    expect(look(offset, length).toString()).toBe("the rest keeps its order")
  })

  test("nothing is overwritten before the guest gives it back", async () => {
    const upload = guest.open({ op: "writeArchive", path: "/x" })
    const { stream } = await fake.opened()
    const sent = patterned(2 * regionBytes)
    void upload.write(sent)
    let base = 0
    for (let bytes = 0; bytes < regionBytes; ) {
      const { offset, length } = extentOf(await fake.frame())
      if (bytes === 0) base = offset
      bytes += length
    }
    const ping = guest.ask({ op: "ping" }, { deadlineMs: 5000 })
    const { stream: pinged } = await fake.opened()
    fake.close(pinged, { ok: { version: "1", personalised: true } })
    await ping
    expect(look(base, regionBytes).equals(sent.subarray(0, regionBytes))).toBe(true)

    fake.send(encodeWindow(stream, 1000))
    const next = extentOf(await fake.frame())
    expect(next).toEqual({ offset: base, length: 1000 })
    expect(look(base + 1000, regionBytes - 1000).equals(sent.subarray(1000, regionBytes))).toBe(true)
  })

  test("memory that cannot be written ends the transfer and nothing else", async () => {
    const upload = guest.open({ op: "writeFile", path: "/x" })
    await fake.opened()
    await upload.write(patterned(pieceBytes))
    extentOf(await fake.frame())
    sealMemoryFile(memory)
    const error = await failure(upload.write(patterned(pieceBytes)))
    expect(error.message).toContain("cannot be written")
    upload.close()
    expect((await fake.frame()).type).toBe("close")
    const ping = guest.ask({ op: "ping" }, { deadlineMs: 5000 })
    fake.close((await fake.opened()).stream, { ok: { version: "1", personalised: true } })
    await ping
  })

  test.each([
    ["without memory", () => undefined],
    ["where it cannot be written", () => openAgain("r")],
  ])("%s everything goes as data", async (_, open) => {
    guest.share(open)
    const upload = guest.open({ op: "writeFile", path: "/x" })
    await fake.opened()
    void upload.write(patterned(pieceBytes))
    expect((await fake.frame()).type).toBe("data")
    expect((await beginNothing()).shared).toBeUndefined()
  })

  /** A download that is asked for behind the data of an upload. */
  async function beginNothing(): Promise<{ shared: unknown }> {
    expect((await fake.frame()).type).toBe("data")
    guest.open({ op: "readFile", path: "/x" })
    return { shared: (await fake.opened()).request["shared"] }
  }
})

describe("from the guest", () => {
  test("bytes are read when they are taken, and given back then", async () => {
    const { download, stream, shared: base = -1 } = await beginDownload()
    expect(base).toBe(memoryBytes / 2)
    const sent = patterned(regionBytes)
    for (let at = 0; at < regionBytes; at += pieceBytes)
      put(stream, base + at, sent.subarray(at, at + pieceBytes))
    const reading = download.output[Symbol.asyncIterator]()
    const first = await reading.next()
    const got: Uint8Array[] = [first.value ?? new Uint8Array()]
    for (let bytes = got[0]?.length ?? 0; bytes < regionBytes; ) {
      const { value = new Uint8Array() } = await reading.next()
      got.push(value)
      bytes += value.length
    }
    expect(Buffer.concat(got).equals(sent)).toBe(true)
    let credit = 0
    while (credit < regionBytes) credit += (await fake.frame()).payload.readUInt32BE()
    put(stream, base, Buffer.from("again"))
    fake.send(encodeEnd(stream, 1))
    fake.close(stream, { ok: { bytes: regionBytes + 5 } })
    expect(Buffer.from((await reading.next()).value ?? []).toString()).toBe("again")
    expect((await reading.next()).done).toBe(true)
    expect(await download.result).toEqual({ bytes: regionBytes + 5 })
  })

  test("what was read does not change any more", async () => {
    const { download, stream, shared: base = 0 } = await beginDownload()
    put(stream, base, Buffer.from("first"))
    const { value } = await download.output[Symbol.asyncIterator]().next()
    writeSync(memory, Buffer.from("other"), 0, 5, base)
    expect(Buffer.from(value ?? []).toString()).toBe("first")
  })

  test("memory that cannot be read ends the transfer and nothing else", async () => {
    guest.share(() => openAgain(constants.O_WRONLY))
    const { download, stream, shared = 0 } = await beginDownload()
    put(stream, shared, Buffer.from("bytes"))
    expect((await failure(collect(download.output))).message).toContain("cannot be read")
    expect((await fake.frame()).type).toBe("close")
    fake.close(stream, { error: { code: "unavailable", message: "closed" } })
    await failure(download.result)
    const ping = guest.ask({ op: "ping" }, { deadlineMs: 5000 })
    fake.close((await fake.opened()).stream, { ok: { version: "1", personalised: true } })
    await ping
  })

  const half = memoryBytes / 2
  test.each([
    ["before its region", half - 1, 1],
    ["behind the next place", half + 1, 1],
    ["in another region", half + regionBytes, 1],
    ["in the half towards the guest", 0, 1],
    ["behind the memory", memoryBytes, 1],
    ["at the largest place there is", 0xffff_ffff, 65_536],
    ["that is empty", half, 0],
    ["that is too long", half, pieceBytes + 1],
  ])("a piece %s costs the guest its connection", async (_, offset, length) => {
    const { download, stream } = await beginDownload()
    const reading = collect(download.output)
    fake.send(encodeDataAt(stream, 1, { offset, length }))
    expect((await failure(reading)).code).toBe("unavailable")
    await guest.closed
  })

  test("so does a piece across its end, of another channel, beyond the window or without a region", async () => {
    const across = await beginDownload()
    void failure(collect(across.download.output))
    for (let at = 0; at < 3; at++) put(across.stream, half + at * pieceBytes, patterned(pieceBytes))
    put(across.stream, half + 3 * pieceBytes, patterned(pieceBytes - 1))
    fake.send(encodeDataAt(across.stream, 1, { offset: half + regionBytes - 1, length: 2 }))
    expect((await guest.closed).reason).toContain("does not belong")

    await meet(2)
    fake.send(encodeDataAt((await beginDownload()).stream, 2, { offset: half, length: 1 }))
    expect((await guest.closed).reason).toContain("channel 2")

    await meet(2)
    const { stream } = await beginDownload()
    for (let at = 0; at < regionBytes; at += pieceBytes)
      fake.send(encodeDataAt(stream, 1, { offset: half + at, length: pieceBytes }))
    fake.send(encodeDataAt(stream, 1, { offset: half, length: 1 }))
    expect((await guest.closed).reason).toContain("window")

    await meet(2)
    guest.processes.start({ onDisconnect: "kill", argv: ["sh"] })
    fake.send(encodeDataAt((await fake.opened()).stream, 1, { offset: half, length: 1 }))
    expect((await guest.closed).reason).toContain("was not given")

    await meet(2)
    void failure(guest.ask({ op: "ping" }, { deadlineMs: 5000 }))
    fake.send(encodeDataAt((await fake.opened()).stream, 1, { offset: half, length: 1 }))
    await guest.closed
  })

  test("a guest of the first generation is told nothing of it", async () => {
    await meet(1)
    const { download, stream, shared } = await beginDownload()
    expect(shared).toBeUndefined()
    fake.send(encodeData(stream, 1, Buffer.from("hello")))
    fake.close(stream, { ok: { bytes: 5 } })
    expect((await collect(download.output)).toString()).toBe("hello")
    const upload = guest.open({ op: "writeFile", path: "/x" })
    const { stream: up } = await fake.opened()
    void upload.write(patterned(pieceBytes))
    expect((await fake.frame()).type).toBe("data")
    fake.send(encodeDataAt(up, 1, { offset: half, length: 1 }))
    await guest.closed
  })
})

describe("a region", () => {
  test("is free when the guest has closed the stream and all of it was read", async () => {
    const all = []
    for (let one = 0; one < 3; one++) all.push(await beginDownload())
    expect(new Set(all.map(({ shared }) => shared)).size).toBe(3)
    expect((await beginDownload()).shared).toBeUndefined()

    const [first, second, third] = all
    if (!first || !second || !third) throw new Error("three were begun")
    // Given up here, and the guest does not know yet.
    first.download.close()
    expect((await fake.frame()).type).toBe("close")
    expect((await failure(collect(first.download.output))).message).toContain("given up")
    expect((await beginDownload()).shared).toBeUndefined()
    fake.close(first.stream, { error: { code: "unavailable", message: "closed" } })
    await failure(first.download.result)
    expect((await beginDownload()).shared).toBe(first.shared)

    // Finished by the guest, and not read yet.
    put(second.stream, second.shared ?? 0, Buffer.from("late"))
    fake.close(second.stream, { ok: { bytes: 4 } })
    await second.download.result
    expect((await beginDownload()).shared).toBeUndefined()
    expect((await collect(second.download.output)).toString()).toBe("late")
    expect((await beginDownload()).shared).toBe(second.shared)

    // Finished by the guest, and nobody wants it any more.
    put(third.stream, third.shared ?? 0, Buffer.from("late"))
    fake.close(third.stream, { ok: { bytes: 4 } })
    await third.download.result
    third.download.close()
    expect((await beginDownload()).shared).toBe(third.shared)
    await failure(collect(third.download.output))
  })

  test("of a stream that was forgotten here waits for the guest's close", () => {
    const shared = new SharedMemory(() => new Uint8Array(16))
    shared.use(openAgain)
    const bases = [1, 2, 3, 4].map((stream) => shared.claim(stream, "to guest")?.base)
    expect(new Set(bases).size).toBe(4)
    expect(shared.claim(5, "to guest")).toBeUndefined()
    shared.guestClosed(9)
    expect(shared.claim(5, "to guest")).toBeUndefined()
    shared.guestClosed(3)
    expect(shared.claim(5, "to guest")?.base).toBe(bases[2] ?? -1)
    shared.close()
  })

  test("cannot be read when the connection is over: the next one may use it", async () => {
    const { download, stream, shared = 0 } = await beginDownload()
    put(stream, shared, Buffer.from("late"))
    fake.close(stream, { ok: { bytes: 4 } })
    await download.result
    guest.close()
    expect((await failure(collect(download.output))).code).toBe("unavailable")
  })

  test("is used behind the mark of this connection, which goes when none is used", async () => {
    const marked = () => look(memoryBytes - regionBytes, fake.nonce.length).equals(fake.nonce)
    expect(marked()).toBe(false)
    const { download, stream } = await beginDownload()
    expect(marked()).toBe(true)
    const upload = guest.open({ op: "writeFile", path: "/x" })
    const { stream: up } = await fake.opened()
    await upload.write(patterned(pieceBytes))
    extentOf(await fake.frame())
    fake.close(stream, { ok: { bytes: 0 } })
    await download.result
    expect(marked()).toBe(true)
    fake.close(up, { ok: { bytes: pieceBytes } })
    await upload.result
    expect(marked()).toBe(false)
    await beginDownload()
    expect(marked()).toBe(true)
  })

  test("that nobody uses takes no memory", async () => {
    const { download, stream, shared = 0 } = await beginDownload()
    const reading = collect(download.output)
    put(stream, shared, patterned(pieceBytes))
    expect(fstatSync(memory).blocks).toBeGreaterThan(0)
    fake.close(stream, { ok: { bytes: pieceBytes } })
    expect(await reading).toHaveLength(pieceBytes)
    await download.result
    expect(fstatSync(memory).blocks).toBe(0)

    const upload = guest.open({ op: "writeFile", path: "/x" })
    const { stream: up } = await fake.opened()
    await upload.write(patterned(pieceBytes))
    expect(fstatSync(memory).blocks).toBeGreaterThan(0)
    fake.hangUp()
    await guest.closed
    expect(fstatSync(memory).blocks).toBe(0)
    expect(up).toBeGreaterThan(stream)
  })

  test("is opened when it is needed and closed with the connection", async () => {
    let opened = -1
    guest.share(() => {
      opened = openAgain()
      return opened
    })
    void failure(guest.ask({ op: "ping" }, { deadlineMs: 5000 }))
    await fake.opened()
    expect(opened).toBe(-1)
    await beginDownload()
    expect(fstatSync(opened).size).toBe(memoryBytes)
    guest.close()
    expect(() => fstatSync(opened)).toThrow()
  })
})
