/** The host's end against a guest that is played here: an obedient one, a slow one, a dead one, a hostile one. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { FakeGuest, failure } from "../../test/support/fake-guest.ts"
import { encodeData, encodeFrame, encodeWindow, wireLimits } from "./frame.ts"
import { type Guest, openGuest } from "./guest.ts"

const deadlineMs = 5000

let directory: string
let fake: FakeGuest
let guest: Guest
const unhandled: unknown[] = []
const onUnhandled = (error: unknown) => unhandled.push(error)

beforeEach(async () => {
  unhandled.length = 0
  process.on("unhandledRejection", onUnhandled)
  directory = mkdtempSync(join(tmpdir(), "bhatti-guest-"))
  fake = new FakeGuest(directory)
  guest = await openGuest({ socketPath: fake.socketPath })
})

afterEach(async () => {
  guest.close()
  fake.stop()
  await Bun.sleep(1)
  process.off("unhandledRejection", onUnhandled)
  rmSync(directory, { recursive: true })
  expect(unhandled).toEqual([])
})

async function readAll(output: AsyncIterable<{ channel: string; bytes: Uint8Array }>) {
  const read = { stdout: "", stderr: "" }
  for await (const { channel, bytes } of output) {
    if (channel === "stdout" || channel === "stderr") read[channel] += Buffer.from(bytes).toString()
  }
  return read
}

test("requests may follow the preamble without waiting", async () => {
  const pong = guest.ask({ op: "ping" }, { deadlineMs })
  await fake.take(wireLimits.preambleBytes)
  expect((await fake.opened()).request).toEqual({ op: "ping" })
  expect(fake.waitingBytes).toBe(0)
  guest.close()
  expect((await failure(pong)).code).toBe("unavailable")
})

test("ready and ping tell what the guest says", async () => {
  const ready = guest.waitReady({ deadlineMs })
  await fake.greet()
  await guest.ready
  expect(await ready).toEqual({ generation: 1 })
  const pong = guest.ask({ op: "ping" }, { deadlineMs })
  const { stream } = await fake.opened()
  fake.close(stream, { ok: { agent: "lohar", version: "1", personalised: false, boot_failures: ["x"] } })
  expect(await pong).toEqual({
    version: "1",
    personalised: false,
    bootFailures: ["x"],
    rootReadOnly: false,
    repair: undefined,
  })
})

test("personalise sends fresh randomness and the time", async () => {
  await fake.greet()
  await guest.ready
  const identity = { hostname: "dev", machineId: "0".repeat(32), env: {}, network: null, growDisk: false }
  const seen = new Set<unknown>()
  for (let round = 0; round < 2; round++) {
    const done = guest.ask({ op: "personalise", identity }, { deadlineMs })
    const { stream, request } = await fake.opened()
    fake.close(stream, { ok: { boot_id: "b" } })
    expect(await done).toEqual({ bootId: "b", isPending: false, knowsImages: false })
    expect(Math.abs(Number(BigInt(String(request.unix_ns)) / 1_000_000n) - Date.now())).toBeLessThan(2000)
    expect(Buffer.from(String(request.entropy), "base64").length).toBe(64)
    seen.add(request.entropy)
  }
  expect(seen.size).toBe(2)
})

test("a command's start, output and end arrive in order", async () => {
  await fake.greet()
  await guest.ready
  const process = guest.processes.start({ onDisconnect: "kill", argv: ["sh"] })
  const output = readAll(process.output)
  const { stream, request } = await fake.opened()
  expect(request).toEqual({ op: "exec", argv: ["sh"] })
  fake.message(stream, { started: { pid: 5 } })
  fake.send(encodeData(stream, 1, Buffer.from("out")), encodeData(stream, 2, Buffer.from("err")))
  fake.close(stream, { ok: { exit_code: 3, signal: null } })
  expect(await process.attached).toMatchObject({ pid: 5 })
  expect(await process.result).toMatchObject({ ended: { exitCode: 3, signal: null } })
  expect(await output).toEqual({ stdout: "out", stderr: "err" })
})

test("a command that cannot start fails everywhere but in its output", async () => {
  await fake.greet()
  await guest.ready
  const process = guest.processes.start({ onDisconnect: "kill", argv: ["nope"] })
  const { stream } = await fake.opened()
  fake.close(stream, { error: { code: "not_found", message: "no program" } })
  expect((await failure(process.result)).code).toBe("not_found")
  expect((await failure(process.attached)).message).toBe("no program")
  expect(await readAll(process.output)).toEqual({ stdout: "", stderr: "" })
})

test("input waits for the guest's window and its order is kept", async () => {
  await fake.greet()
  await guest.ready
  const process = guest.processes.start({ onDisconnect: "kill", argv: ["cat"], stdin: true })
  const { stream } = await fake.opened()
  const input = crypto.getRandomValues(new Uint8Array(65_536))
  const writes = Array.from({ length: 6 }, () => process.write(input))
  process.endInput()
  let received = Buffer.alloc(0)
  const readData = async (count: number) => {
    while (received.length < count) {
      const { type, payload } = await fake.frame()
      expect(type).toBe("data")
      expect(payload.length).toBeLessThanOrEqual(wireLimits.dataBytesMax + 1)
      received = Buffer.concat([received, payload.subarray(1)])
    }
  }
  await readData(wireLimits.windowBytes)
  await Bun.sleep(20)
  expect(fake.waitingBytes).toBe(0)
  fake.send(encodeWindow(stream, wireLimits.windowBytes))
  await readData(6 * input.length)
  await Promise.all(writes)
  expect(received.equals(Buffer.concat(Array.from({ length: 6 }, () => input)))).toBe(true)
  expect((await fake.frame()).type).toBe("end")
})

test("input for a guest that does not read waits outside the socket", async () => {
  await fake.greet()
  await guest.ready
  await guest.waitReady({ deadlineMs })
  fake.pause()
  const processes = Array.from({ length: 20 }, () =>
    guest.processes.start({ onDisconnect: "kill", argv: ["cat"], stdin: true }),
  )
  let writtenCount = 0
  for (const process of processes)
    void process.write(new Uint8Array(wireLimits.windowBytes)).then(() => writtenCount++)
  await Bun.sleep(50)
  expect(writtenCount).toBeLessThan(20)
  fake.resume()
  await fake.until(() => writtenCount === 20)
  await fake.until(() => fake.waitingBytes > 20 * wireLimits.windowBytes)
})

test("credit goes back only for output that was taken", async () => {
  await fake.greet()
  await guest.ready
  const process = guest.processes.start({ onDisconnect: "kill", argv: ["yes"] })
  const { stream } = await fake.opened()
  for (let sent = 0; sent < wireLimits.windowBytes; sent += wireLimits.dataBytesMax) {
    fake.send(encodeData(stream, 1, new Uint8Array(wireLimits.dataBytesMax)))
  }
  await Bun.sleep(30)
  expect(fake.waitingBytes).toBe(0)
  const output = process.output[Symbol.asyncIterator]()
  for (let taken = 0; taken < wireLimits.windowBytes / 4; )
    taken += (await output.next()).value?.bytes.length ?? 0
  expect(await fake.frame()).toEqual({ type: "window", stream, payload: Buffer.of(0, 1, 0, 0) })
  await output.return?.()
  expect(await fake.frame()).toEqual({ type: "window", stream, payload: Buffer.of(0, 3, 0, 0) })
  fake.send(encodeData(stream, 1, Buffer.alloc(100)))
  fake.close(stream, { ok: { exit_code: 0, signal: null } })
  expect(await process.result).toMatchObject({ ended: { exitCode: 0 } })
})

test("a flood of single bytes is kept in few pieces", async () => {
  await fake.greet()
  await guest.ready
  const process = guest.processes.start({ onDisconnect: "kill", argv: ["yes"] })
  const { stream } = await fake.opened()
  const pair = Buffer.concat([
    encodeData(stream, 1, Buffer.from("o")),
    encodeData(stream, 2, Buffer.from("e")),
  ])
  const count = 20_000
  fake.send(Buffer.concat(Array.from({ length: count }, () => pair)))
  fake.close(stream, { ok: { exit_code: 0, signal: null } })
  await process.result
  let pieces = 0
  const lengths = { stdout: 0, stderr: 0 }
  for await (const { channel, bytes } of process.output) {
    pieces++
    lengths[channel] += bytes.length
    expect(new Set(bytes)).toEqual(new Set([channel === "stdout" ? 111 : 101]))
  }
  expect(lengths).toEqual({ stdout: count, stderr: count })
  expect(pieces).toBeLessThan(1100)
})

test("signal, resize and kill are told to the guest, kill once", async () => {
  await fake.greet()
  await guest.ready
  const process = guest.processes.start({ onDisconnect: "kill", argv: ["vi"], tty: { rows: 1, cols: 2 } })
  await fake.opened()
  process.signal({ signal: "INT" })
  process.resize({ rows: 3, cols: 4 })
  process.kill("test")
  process.kill("test")
  expect(JSON.parse((await fake.frame()).payload.toString())).toEqual({ signal: "INT" })
  expect(JSON.parse((await fake.frame()).payload.toString())).toEqual({ resize: { rows: 3, cols: 4 } })
  expect((await fake.frame()).type).toBe("close")
  await Bun.sleep(10)
  expect(fake.waitingBytes).toBe(0)
})

test("what a command is sent after its end is dropped", async () => {
  await fake.greet()
  await guest.ready
  const process = guest.processes.start({ onDisconnect: "kill", argv: ["true"], stdin: true })
  const { stream } = await fake.opened()
  fake.close(stream, { ok: { exit_code: 0, signal: null } })
  await process.result
  await process.write(Buffer.from("late"))
  process.endInput()
  process.signal({ signal: "INT" })
  process.kill("test")
  await Bun.sleep(10)
  expect(fake.waitingBytes).toBe(0)
})

test("a lost channel fails everything that waits", async () => {
  await fake.greet()
  await guest.ready
  const process = guest.processes.start({ onDisconnect: "kill", argv: ["cat"], stdin: true })
  const pong = guest.ask({ op: "ping" }, { deadlineMs })
  const written = process.write(new Uint8Array(2 * wireLimits.windowBytes))
  const output = readAll(process.output)
  await fake.opened()
  fake.hangUp()
  expect(await guest.closed).toEqual({ reason: "the guest's machine closed the channel" })
  for (const pending of [
    process.attached,
    process.result,
    written,
    output,
    pong,
    guest.ask({ op: "ping" }, { deadlineMs }),
  ]) {
    expect((await failure(pending)).code).toBe("unavailable")
  }
  expect((await failure(guest.processes.start({ onDisconnect: "kill", argv: ["x"] }).result)).code).toBe(
    "unavailable",
  )
})

test("a lost channel harms nobody who does not listen", async () => {
  await fake.greet()
  await guest.ready
  const process = guest.processes.start({ onDisconnect: "kill", argv: ["cat"], stdin: true })
  void process.write(new Uint8Array(2 * wireLimits.windowBytes))
  void guest.ask({ op: "ping" }, { deadlineMs })
  void guest.waitReady({ deadlineMs: 1 })
  void guest.ask({ op: "quiesce" }, { deadlineMs: 1 })
  guest.close()
  await Bun.sleep(20)
})

test("output that came before the loss can still be read", async () => {
  await fake.greet()
  await guest.ready
  const process = guest.processes.start({ onDisconnect: "kill", argv: ["x"] })
  const { stream } = await fake.opened()
  fake.message(stream, { started: { pid: 1 } })
  fake.send(encodeData(stream, 1, Buffer.from("last words")))
  await process.attached
  await Bun.sleep(5)
  fake.hangUp()
  await guest.closed
  const output = process.output[Symbol.asyncIterator]()
  expect(Buffer.from((await output.next()).value?.bytes ?? []).toString()).toBe("last words")
  expect((await failure(output.next())).code).toBe("unavailable")
})

test("an answer that is late is not waited for, and not a fault", async () => {
  await fake.greet()
  await guest.ready
  const late = await failure(guest.ask({ op: "ping" }, { deadlineMs: 20 }))
  expect(late.code).toBe("unavailable")
  const { stream } = await fake.opened()
  expect((await fake.frame()).type).toBe("close")
  fake.close(stream, { ok: { version: "1", personalised: true } })
  const pong = guest.ask({ op: "ping" }, { deadlineMs })
  fake.close((await fake.opened()).stream, { ok: { version: "2", personalised: true } })
  expect((await pong).version).toBe("2")
})

test("a guest in the middle of a frame is asked again behind zeros", async () => {
  const lost = failure(guest.ask({ op: "ping" }, { deadlineMs }))
  const ready = guest.waitReady({ deadlineMs, resync: true })
  const first = await fake.take(wireLimits.preambleBytes)
  await fake.opened()
  const zeros = await fake.take(wireLimits.frameBytesMax)
  expect(zeros.every((byte) => byte === 0)).toBe(true)
  // The answer to the first preamble comes late, and is not for us any more.
  fake.send(Buffer.of(0xb4), Buffer.from("LOHAR\r\n"), first.subarray(8, 24), Buffer.of(0, 1, 0, 0))
  await fake.greet()
  await guest.ready
  expect(await ready).toEqual({ generation: 1 })
  expect((await lost).message).toContain("was restarted")
})

test("too many commands are refused here", async () => {
  await fake.greet()
  await guest.ready
  const processes = Array.from({ length: wireLimits.streamsMax + 1 }, () =>
    guest.processes.start({ onDisconnect: "kill", argv: ["x"] }),
  )
  const last = processes.at(-1)
  expect(last && (await failure(last.result)).code).toBe("limit_exceeded")
  expect(
    (
      await failure(
        guest.processes.start({ onDisconnect: "kill", argv: ["x".repeat(wireLimits.jsonBytesMax)] }).result,
      )
    ).code,
  ).toBe("invalid")
})

const chunk = new Uint8Array(wireLimits.dataBytesMax)
const hostile: Record<string, (stream: number) => Uint8Array[]> = {
  "no frame at all": () => [Buffer.from("HTTP/1.1 200 OK\r\n\r\n")],
  "more output than the window": (stream) => Array.from({ length: 9 }, () => encodeData(stream, 1, chunk)),
  "more credit than was used": (stream) => [encodeWindow(stream, 1)],
  "output on the input's channel": (stream) => [encodeData(stream, 0, chunk)],
  "output on a channel there is not": (stream) => [encodeData(stream, 9, chunk)],
  "a stream of its own": () => [encodeFrame({ type: "open", stream: 9, payload: Buffer.from("{}") })],
  "bad JSON": (stream) => [encodeFrame({ type: "message", stream, payload: Buffer.from("{{{") })],
  "a result of another kind": (stream) => [
    encodeFrame({ type: "close", stream, payload: Buffer.from('{"ok":{}}') }),
  ],
  "a huge result": (stream) => [
    encodeFrame({ type: "close", stream, payload: Buffer.from("[".repeat(wireLimits.jsonBytesMax)) }),
  ],
}

test.each(Object.keys(hostile))("a hostile guest loses its connection: %s", async (name) => {
  await fake.greet()
  await guest.ready
  const process = guest.processes.start({ onDisconnect: "kill", argv: ["x"] })
  const { stream } = await fake.opened()
  fake.send(...(hostile[name]?.(stream) ?? []))
  await guest.closed
  expect((await failure(process.result)).code).toBe("unavailable")
  await fake.until(() => fake.isGone)
})

test("a guest that answers ping with a command's frames loses its connection", async () => {
  await fake.greet()
  await guest.ready
  const pong = guest.ask({ op: "ping" }, { deadlineMs })
  fake.message((await fake.opened()).stream, { started: { pid: 1 } })
  expect((await failure(pong)).code).toBe("unavailable")
})

test("a flood of what nobody asked for is cut off", async () => {
  await fake.greet()
  await guest.ready
  const flood = encodeData(77, 1, chunk)
  for (let sent = 0; sent < 70 * 1024 * 1024 && !fake.isGone; sent += 64 * flood.length) {
    fake.send(...Array.from({ length: 64 }, () => flood))
    await Bun.sleep(0)
  }
  expect(await guest.closed).toEqual({ reason: "the guest floods the channel" })
})

test("nobody there is an error at once", async () => {
  const nobody = openGuest({ socketPath: join(directory, "nobody.sock") })
  expect((await failure(nobody)).code).toBe("unavailable")
})

test("an abort closes the channel", async () => {
  const abort = new AbortController()
  const other = await openGuest({ socketPath: fake.socketPath, signal: abort.signal })
  abort.abort()
  expect(await other.closed).toEqual({ reason: "this host closed it" })
  expect((await failure(openGuest({ socketPath: fake.socketPath, signal: abort.signal }))).code).toBe(
    "unavailable",
  )
})
