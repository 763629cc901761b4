/**
 * A guest whose root has put its own program in the agent's place: it answers the preamble and then says whatever it
 * likes. For every such speech: nothing is thrown that nobody listens to, everything that waits comes to an end, what
 * is kept stays small, and another guest's channel does not notice.
 */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { mkdirSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import fc from "fast-check"
import { FakeGuest } from "../../test/support/fake-guest.ts"
import { encodeFrame, type FrameType, wireLimits } from "./frame.ts"
import { type Guest, openGuest } from "./guest.ts"

const deadlineMs = 300

let directory: string
const unhandled: unknown[] = []
const onUnhandled = (error: unknown) => unhandled.push(error)

beforeEach(() => {
  unhandled.length = 0
  process.on("unhandledRejection", onUnhandled)
  directory = mkdtempSync(join(tmpdir(), "bhatti-hostile-"))
})
afterEach(() => {
  process.off("unhandledRejection", onUnhandled)
  rmSync(directory, { recursive: true })
  expect(unhandled).toEqual([])
})

async function meet(name: string): Promise<{ fake: FakeGuest; guest: Guest }> {
  const place = join(directory, name)
  mkdirSync(place, { recursive: true })
  const fake = new FakeGuest(place)
  const guest = await openGuest({ socketPath: fake.socketPath })
  await fake.greet()
  await guest.ready
  return { fake, guest }
}

/** Starts every kind of operation that can wait for a guest. Their streams have the ids from 1 on. */
function askEverything(guest: Guest): Promise<unknown>[] {
  const tty = { rows: 24, cols: 80 }
  const process = guest.processes.start({ onDisconnect: "kill", argv: ["sh"], stdin: true })
  const session = guest.processes.start({ tty, onDisconnect: "keep" })
  const download = guest.open({ op: "readFile", path: "/x" })
  const upload = guest.open({ op: "writeFile", path: "/x" })
  const archive = guest.open({ op: "readArchive", path: "/x" })
  const connection = guest.open({ op: "dial", port: 80 })
  // The output is read and dropped.
  const read = async (output: AsyncIterable<unknown>) => {
    for await (const _ of output);
  }
  return [
    process.attached,
    process.result,
    read(process.output),
    process.write(Buffer.alloc(100_000)),
    session.attached,
    session.result,
    read(session.output),
    download.file,
    download.result,
    read(download.output),
    upload.result,
    upload.write(Buffer.alloc(100_000)),
    archive.result,
    read(archive.output),
    connection.connected,
    connection.result,
    read(connection.output),
    guest.ask({ op: "ping" }, { deadlineMs }),
    guest.processes.list({ deadlineMs }),
    guest.ask({ op: "listFiles", path: "/" }, { deadlineMs }),
    guest.ask({ op: "statFile", path: "/" }, { deadlineMs }),
    guest.ask({ op: "setAttributes", path: "/", set: {}, remove: [] }, { deadlineMs }),
    guest.ask({ op: "openWatch", path: "/", recursive: true }, { deadlineMs }),
    guest.ask({ op: "readWatch", watch: "w1", after: 0 }, { deadlineMs }),
    guest.ask({ op: "awaitWatch", watch: "w1", after: 0 }, { deadlineMs }),
    guest.ask({ op: "ports" }, { deadlineMs }),
    guest.ask({ op: "quiesce" }, { deadlineMs }),
  ]
}
const streamsAsked = 14

const stream = fc.oneof(
  { weight: 8, arbitrary: fc.integer({ min: 1, max: streamsAsked }) },
  { weight: 1, arbitrary: fc.integer({ min: 0, max: wireLimits.streamMax }) },
)
const bytes = (max: number) => fc.uint8Array({ maxLength: max })
const file = {
  name: "x",
  size: 1,
  mode: "0644",
  type: "file",
  owner: "",
  group: "",
  modified_unix_ms: 0,
}
/** Messages of an agent, and similar ones. */
const json = fc
  .oneof(
    fc.jsonValue(),
    fc.constantFrom<unknown>(
      { ok: {} },
      { ok: { exit_code: 0, signal: null } },
      { ok: { bytes: -1, entries: 1e300 } },
      { ok: null },
      { error: { code: "not_found", message: "x".repeat(5000) } },
      { error: {} },
      { started: { pid: 1 } },
      { started: { pid: "1" } },
      { opened: { id: "s1", name: null } },
      { file: { name: "../../x", size: -5, mode: "9999", type: "file", owner: "", group: "" } },
      { entries: Array(50).fill({ name: "x" }) },
      { connected: true },
      { ok: { watch: "../x" } },
      { ok: { file: { ...file, attributes: { "user.a": 1, trusted: "x" } } } },
      { ok: { file: { ...file, version: 'a"\r\nx: y', attributes: Array(100).fill("x") } } },
      { ok: { events: [{ type: "rename", path: "x" }], next: 1 } },
      { ok: { events: Array(500).fill({ type: "create", path: "x".repeat(200) }), next: 5 } },
      { ok: { events: [{ type: "lost", path: ".", reason: 7 }], next: -1, ended: [] } },
    ),
  )
  .map((value) => Buffer.from(JSON.stringify(value) ?? "null"))

const frame = fc
  .record({
    type: fc.constantFrom<FrameType>("data", "window", "end", "message", "close", "open", "data_at"),
    stream,
    payload: fc.oneof(json, bytes(300), fc.constant(Buffer.alloc(0))),
  })
  // Frames that an honest encoder would never send are made below, byte by byte.
  .map(({ type, stream, payload }) => rawFrame(type, stream, payload))

function rawFrame(type: FrameType, id: number, payload: Uint8Array): Uint8Array {
  const whole = Buffer.from(encodeFrame({ type: "message", stream: 1, payload }))
  whole.writeUInt8(["open", "data", "window", "end", "message", "close", "data_at"].indexOf(type) + 1, 0)
  whole.writeUInt32BE(id, 4)
  return whole
}

const speech = fc.array(
  fc.oneof(
    { weight: 12, arbitrary: frame },
    { weight: 1, arbitrary: frame.map((one) => Buffer.concat([one, one, one])) },
    { weight: 1, arbitrary: bytes(64) },
    // A length that never comes.
    { weight: 1, arbitrary: fc.constant(Buffer.from("0200000000000001ffffffff00000000", "hex")) },
  ),
  { maxLength: 40 },
)

test("whatever it says, everything that waits for it ends, as a result or as an AppError", async () => {
  await fc.assert(
    fc.asyncProperty(speech, async (parts) => {
      const { fake, guest } = await meet("one")
      try {
        const waiting = Promise.allSettled(askEverything(guest))
        for (const part of parts) fake.send(part)
        fake.hangUp()
        for (const outcome of await waiting)
          if (outcome.status === "rejected") expect(outcome.reason).toBeInstanceOf(AppError)
        expect(guest.activity.openStreams).toBe(0)
      } finally {
        guest.close()
        fake.stop()
      }
    }),
    { numRuns: 150 },
  )
}, 60_000)

test("a silent one does not hold up its neighbour, and what waits for it ends with its channel", async () => {
  const bad = await meet("bad")
  const good = await meet("good")
  try {
    bad.fake.pause()
    const waiting = Promise.allSettled(askEverything(bad.guest))
    const pong = good.guest.ask({ op: "ping" }, { deadlineMs: 5000 })
    const { stream } = await good.fake.opened()
    good.fake.close(stream, { ok: { agent: "lohar", version: "1", personalised: true, boot_failures: [] } })
    expect(await pong).toMatchObject({ personalised: true })
    bad.guest.close()
    const failed = (await waiting).filter((outcome) => outcome.status === "rejected")
    expect(failed.length).toBeGreaterThan(15)
    for (const { reason } of failed) expect(reason).toBeInstanceOf(AppError)
  } finally {
    for (const { guest, fake } of [bad, good]) {
      guest.close()
      fake.stop()
    }
  }
})

test("a flood of any kind of frame is cut off or held back, in bounded memory", async () => {
  const big = new Uint8Array(32 * 1024)
  const kinds: [FrameType, number, Uint8Array][] = [
    ["data", 1, Buffer.concat([Buffer.of(1), big])],
    ["data", 77, big],
    ["message", 1, Buffer.from(JSON.stringify({ noise: "x".repeat(10_000) }))],
    ["close", 78, Buffer.from(JSON.stringify({ ok: "x".repeat(2000) }))],
  ]
  for (const [type, id, payload] of kinds) {
    const { fake, guest } = await meet(`${type}-${id}`)
    try {
      const process = guest.processes.start({ onDisconnect: "kill", argv: ["sh"] })
      const settled = Promise.allSettled([process.attached, process.result])
      Bun.gc(true)
      const before = memoryMib()
      const one = rawFrame(type, id, payload)
      const burst = Buffer.concat(Array.from({ length: Math.ceil(1_000_000 / one.length) }, () => one))
      // More than what may be wasted, or as much as the kernel's buffers take while nobody reads the output.
      for (let sent = 0; sent < 100 * 1024 * 1024 && !fake.isGone; sent += burst.length) {
        if (!fake.tryToSend(burst)) await Bun.sleep(1)
      }
      Bun.gc(true)
      expect(memoryMib() - before, type).toBeLessThan(64)
      guest.close()
      await settled
    } finally {
      guest.close()
      fake.stop()
    }
  }
}, 60_000)

function memoryMib(): number {
  return process.memoryUsage().rss / 1024 / 1024
}
