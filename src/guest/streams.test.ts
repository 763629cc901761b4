/** Sessions, files and connections from the host's end, against a guest that is played here. */

import { afterEach, beforeEach, describe, expect, test } from "bun:test"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { FakeGuest, failure } from "../../test/support/fake-guest.ts"
import { encodeData, encodeEnd, encodeFrame, wireLimits } from "./frame.ts"
import { type Guest, openGuest } from "./guest.ts"
import { Operation } from "./operation.ts"

const deadlineMs = 5000
const deadline = { deadlineMs }
const tty = { rows: 24, cols: 80 }
const file = {
  name: "a b",
  size: 5,
  mode: "0644",
  type: "file",
  owner: "lohar",
  group: "lohar",
  modified_unix_ms: 1_700_000_000_000,
}
const parsedFile = {
  name: "a b",
  size: 5,
  mode: "0644",
  type: "file",
  owner: "lohar",
  group: "lohar",
  modifiedUnixMs: 1_700_000_000_000,
  target: null,
  version: null,
}

let directory: string
let fake: FakeGuest
let guest: Guest
const unhandled: unknown[] = []
const onUnhandled = (error: unknown) => unhandled.push(error)

beforeEach(async () => {
  unhandled.length = 0
  process.on("unhandledRejection", onUnhandled)
  directory = mkdtempSync(join(tmpdir(), "bhatti-streams-"))
  fake = new FakeGuest(directory)
  guest = await openGuest({ socketPath: fake.socketPath })
  await fake.greet()
  await guest.ready
})

afterEach(async () => {
  guest.close()
  fake.stop()
  await Bun.sleep(1)
  process.off("unhandledRejection", onUnhandled)
  rmSync(directory, { recursive: true })
  expect(unhandled).toEqual([])
})

async function textOf(output: AsyncIterable<Uint8Array>): Promise<string> {
  let text = ""
  for await (const bytes of output) text += Buffer.from(bytes).toString()
  return text
}

async function* bytesOf(output: AsyncIterable<{ bytes: Uint8Array }>): AsyncGenerator<Uint8Array> {
  for await (const { bytes } of output) yield bytes
}

describe("sessions of an earlier agent", () => {
  test("are opened, seen, typed into and left", async () => {
    const session = guest.processes.start({
      argv: ["bash"],
      name: "init",
      user: "root",
      tty,
      onDisconnect: "keep",
    })
    const { stream, request } = await fake.opened()
    expect(request).toEqual({
      op: "session_open",
      argv: ["bash"],
      name: "init",
      user: "root",
      tty,
      attach: true,
    })
    fake.message(stream, { session: { id: "s1", name: "init", argv: ["bash"] } })
    fake.send(encodeData(stream, 1, Buffer.from("prompt")))
    expect(await session.attached).toMatchObject({ id: "s1", name: "init" })
    await session.write(Buffer.from("ls\r"))
    expect((await fake.frame()).payload.toString()).toBe("\0ls\r")
    session.resize({ rows: 3, cols: 4 })
    session.signal({ signal: "INT" })
    session.leave()
    expect(JSON.parse((await fake.frame()).payload.toString())).toEqual({ resize: { rows: 3, cols: 4 } })
    expect(JSON.parse((await fake.frame()).payload.toString())).toEqual({ signal: "INT" })
    expect((await fake.frame()).type).toBe("close")
    fake.close(stream, { ok: { state: "detached" } })
    expect(await session.result).toEqual({ state: "left" })
    expect(await textOf(bytesOf(session.output))).toBe("prompt")
  })

  test("are attached to by name", async () => {
    const typed = { ...tty, term: "xterm" }
    const first = guest.processes.attach({ process: "init", mode: "drive", tty: typed })
    const named = await fake.opened()
    expect(named.request).toEqual({ op: "session_attach", session: "init", tty })
    const session = guest.processes.attach({ process: "s2", mode: "drive", tty })
    const free = await fake.opened()
    fake.message(free.stream, { session: { id: "s2", name: null, argv: [] } })
    fake.close(free.stream, { ok: { state: "ended", exit_code: 130, signal: "INT" } })
    const ended = { exitCode: 130, signal: "INT", reason: "signal" as const, by: null, detail: null }
    expect(await session.result).toEqual({ state: "ended", ended })
    fake.close(named.stream, { ok: { state: "taken_over" } })
    expect(await first.result).toEqual({ state: "taken_over" })
  })

  test("are listed, started alone and killed", async () => {
    const started = guest.processes.startDetached({ tty, name: "init", onDisconnect: "keep" }, deadline)
    const open = await fake.opened()
    expect(open.request).toEqual({ op: "session_open", tty, name: "init", attach: false })
    fake.close(open.stream, { ok: { session: "s1" } })
    const record = {
      ...{ id: "s1", name: null, argv: ["bash", "-l"], pid: 7, state: "running", exit_code: null },
      ...{ signal: null, attached: true, created_unix_ms: 1_700_000_000_000 },
    }
    fake.close((await fake.opened()).stream, { ok: { sessions: [record] } })
    const known = {
      ...{ id: "s1", name: null, argv: ["bash", "-l"], pid: 7, ended: null, driven: true, tty: true },
      createdUnixMs: 1_700_000_000_000,
    }
    expect(await started).toMatchObject({ process: known, isNew: true })

    const sessions = guest.processes.list(deadline)
    fake.close((await fake.opened()).stream, { ok: { sessions: [record] } })
    expect(await sessions).toMatchObject([known])

    const killed = guest.processes.signal("s1", { signal: "HUP", scope: "session" }, deadline)
    const kill = await fake.opened()
    expect(kill.request).toEqual({ op: "session_kill", session: "s1", signal: "HUP" })
    fake.close(kill.stream, { error: { code: "not_found", message: "no session" } })
    expect((await failure(killed)).code).toBe("not_found")
  })
})

describe("files", () => {
  test("come down with their description first", async () => {
    const download = guest.open({ op: "readFile", path: "/a b" })
    const { stream, request } = await fake.opened()
    expect(request).toEqual({ op: "file_read", path: "/a b" })
    fake.message(stream, { file })
    fake.send(encodeData(stream, 1, Buffer.from("hello")))
    fake.close(stream, { ok: { bytes: 5 } })
    expect(await download.file).toEqual(parsedFile as never)
    expect(await textOf(download.output)).toBe("hello")
    expect(await download.result).toEqual({ bytes: 5 })
  })

  test("that fail in the middle do not look like short ones", async () => {
    const download = guest.open({ op: "readFile", path: "/x" })
    const { stream } = await fake.opened()
    fake.message(stream, { file })
    fake.send(encodeData(stream, 1, Buffer.from("hel")))
    fake.close(stream, { error: { code: "internal", message: "the disk is broken" } })
    expect((await failure(textOf(download.output))).message).toBe("the disk is broken")
    expect((await failure(download.result)).code).toBe("internal")
  })

  test("go up whole, or are given up", async () => {
    const upload = guest.open({ op: "writeFile", path: "x", mode: "0600", size: 5 })
    const { stream, request } = await fake.opened()
    expect(request).toEqual({ op: "file_write", path: "x", mode: "0600", size: 5, parents: false })
    await upload.write(Buffer.from("hello"))
    upload.endInput()
    expect((await fake.frame()).payload.toString()).toBe("\0hello")
    expect((await fake.frame()).type).toBe("end")
    fake.close(stream, { ok: { bytes: 5 } })
    expect(await upload.result).toEqual({ bytes: 5, entries: 1 })

    const given = guest.open({ op: "writeFile", path: "x" })
    const second = await fake.opened()
    given.close()
    given.close()
    expect((await fake.frame()).type).toBe("close")
    fake.close(second.stream, { error: { code: "unavailable", message: "given up" } })
    expect((await failure(given.result)).code).toBe("unavailable")
    expect(fake.waitingBytes).toBe(0)
  })

  test("that the guest refuses end the writing", async () => {
    const upload = guest.open({ op: "writeFile", path: "x" })
    const { stream } = await fake.opened()
    const written = upload.write(new Uint8Array(2 * wireLimits.windowBytes))
    fake.close(stream, { error: { code: "too_large", message: "too large" } })
    expect((await failure(upload.result)).code).toBe("too_large")
    await written
  })

  test("are listed in pieces", async () => {
    const listed = guest.ask({ op: "listFiles", path: "/x" }, deadline)
    const { stream, request } = await fake.opened()
    expect(request).toEqual({ op: "file_list", path: "/x" })
    fake.message(stream, { entries: [file, { ...file, type: "symlink", target: "t" }] })
    fake.message(stream, { entries: [{ ...file, name: "\ufffd", name_is_lossy: true }] })
    fake.close(stream, { ok: { entries: 3, truncated: true } })
    expect((await listed).isTruncated).toBe(true)
    expect((await listed).files.map(({ name, type, target }) => [name, type, target])).toEqual([
      ["a b", "file", null],
      ["a b", "symlink", "t"],
      ["\ufffd", "file", null],
    ])
  })

  test("are looked at, removed, moved, and made room for", async () => {
    const asked: [Promise<unknown>, object, object, unknown][] = [
      [
        guest.ask({ op: "statFile", path: "x" }, deadline),
        { op: "file_stat", path: "x" },
        { file },
        parsedFile,
      ],
      [
        guest.ask({ op: "removeFile", path: "x", recursive: true }, deadline),
        { op: "file_remove", path: "x", recursive: true },
        {},
        undefined,
      ],
      [
        guest.ask({ op: "makeDirectory", path: "x", parents: true, mode: "0755" }, deadline),
        { op: "file_mkdir", path: "x", parents: true, mode: "0755" },
        {},
        undefined,
      ],
      [
        guest.ask({ op: "moveFile", from: "x", to: "y" }, deadline),
        { op: "file_move", from: "x", to: "y" },
        {},
        undefined,
      ],
    ]
    for (const [promise, request, ok, answer] of asked) {
      const opened = await fake.opened()
      expect(opened.request).toEqual(request as Record<string, unknown>)
      fake.close(opened.stream, { ok })
      expect(await promise).toEqual(answer)
    }
  })

  test("travel as archives", async () => {
    const down = guest.open({ op: "readArchive", path: "x" })
    const { stream } = await fake.opened()
    fake.send(encodeData(stream, 1, Buffer.from("tar")))
    fake.close(stream, { ok: { entries: 3, bytes: 100 } })
    expect(await textOf(down.output)).toBe("tar")
    expect(await down.result).toEqual({ entries: 3, bytes: 100 })
    const up = guest.open({ op: "writeArchive", path: "y" })
    expect((await fake.opened()).request).toEqual({ op: "archive_write", path: "y" })
    up.close()
  })
})

describe("connections", () => {
  test("have two halves", async () => {
    const connection = guest.open({ op: "dial", port: 3000 })
    const { stream, request } = await fake.opened()
    expect(request).toEqual({ op: "dial", port: 3000 })
    fake.message(stream, { connected: {} })
    await connection.connected
    fake.send(encodeData(stream, 1, Buffer.from("hello")), encodeEnd(stream, 1))
    // The other side has ended; this one goes on.
    expect(await textOf(connection.output)).toBe("hello")
    await connection.write(Buffer.from("late"))
    connection.endInput()
    expect((await fake.frame()).payload.toString()).toBe("\0late")
    expect((await fake.frame()).type).toBe("end")
    fake.close(stream, { ok: {} })
    expect(await connection.result).toBeUndefined()
  })

  test("that nobody answers fail", async () => {
    const connection = guest.open({ op: "dial", port: 1 })
    fake.close((await fake.opened()).stream, { error: { code: "unavailable", message: "nothing answers" } })
    for (const promise of [connection.connected, connection.result, textOf(connection.output)]) {
      expect((await failure(promise)).message).toBe("nothing answers")
    }
  })

  test("have ports", async () => {
    const ports = guest.ask({ op: "ports" }, deadline)
    fake.close((await fake.opened()).stream, { ok: { ports: [{ port: 3000, address: "::1" }] } })
    expect(await ports).toEqual([{ port: 3000, address: "::1" }])
  })
})

describe("a guest that does not go on", () => {
  const bounded = (stallDeadlineMs: number) => {
    const sent: Uint8Array[] = []
    let isLeft = false
    const operation = new Operation<true, true>(
      7,
      {
        send: (bytes) => sent.push(bytes),
        room: async () => undefined,
        leave: () => {
          isLeft = true
        },
      },
      {
        parseFirst: () => true,
        parseAnswer: () => true,
        toChunk: (_, bytes) => bytes,
        outputFails: true,
        firstDeadlineMs: 10_000,
        stallDeadlineMs,
      },
    )
    return { operation, sent, isLeft: () => isLeft }
  }

  test("costs the reader its stream", async () => {
    const { operation, isLeft } = bounded(20)
    expect((await failure(textOf(operation.output))).code).toBe("unavailable")
    expect((await failure(operation.result)).code).toBe("unavailable")
    expect(isLeft()).toBe(true)
  })

  test("costs the writer its stream, for want of room and of an answer", async () => {
    const first = bounded(20)
    expect((await failure(first.operation.write(new Uint8Array(wireLimits.windowBytes + 1)))).code).toBe(
      "unavailable",
    )
    const second = bounded(20)
    second.operation.endInput()
    expect((await failure(second.operation.result)).code).toBe("unavailable")
    expect(second.sent.map(([type]) => type)).toEqual([4, 6])
  })

  test("is waited for while bytes come", async () => {
    const { operation } = bounded(60)
    const reading = textOf(operation.output)
    for (let round = 0; round < 6; round++) {
      await Bun.sleep(20)
      operation.onData(1, Buffer.from("x"))
    }
    operation.onClose({ kind: "ok", value: {} })
    expect(await reading).toBe("xxxxxx")
    expect(await operation.result).toBe(true)
  })
})

const badMessage: Record<string, (stream: number) => Uint8Array> = {
  "no JSON": (stream) => encodeFrame({ type: "message", stream, payload: Buffer.from("{") }),
  "a file without a mode": (stream) => message(stream, { file: { ...file, mode: "rw" } }),
  "a file of endless age": (stream) => message(stream, { file: { ...file, modified_unix_ms: 1e300 } }),
  "a file of negative size": (stream) => message(stream, { file: { ...file, size: -1 } }),
  "a type of its own": (stream) => message(stream, { file: { ...file, type: "constructor" } }),
  "a result without bytes": (stream) => close(stream, { ok: {} }),
  "a result of half a byte": (stream) => close(stream, { ok: { bytes: 0.5 } }),
}

test.each(Object.keys(badMessage))("a hostile guest loses its connection: %s", async (name) => {
  const download = guest.open({ op: "readFile", path: "/x" })
  const { stream } = await fake.opened()
  fake.send(badMessage[name]?.(stream) ?? new Uint8Array())
  await guest.closed
  expect((await failure(download.result)).code).toBe("unavailable")
})

const badAnswers: [string, () => Promise<unknown>, unknown][] = [
  ["a session without a command", () => guest.processes.list(deadline), { sessions: [{ id: "s1" }] }],
  [
    "endless sessions",
    () => guest.processes.list(deadline),
    { sessions: Array.from({ length: 2000 }, () => 7) },
  ],
  ["port 0", () => guest.ask({ op: "ports" }, deadline), { ports: [{ port: 0, address: "x" }] }],
  ["no list of ports", () => guest.ask({ op: "ports" }, deadline), { ports: {} }],
  ["no file", () => guest.ask({ op: "statFile", path: "x" }, deadline), { file: null }],
  ["no name of a session", () => guest.processes.startDetached({ tty, onDisconnect: "keep" }, deadline), {}],
]

test.each(badAnswers)("a hostile guest loses its connection: %s", async (_, ask, ok) => {
  const asked = ask()
  fake.close((await fake.opened()).stream, { ok })
  await guest.closed
  expect((await failure(asked)).code).toBe("unavailable")
})

test("a listing has an end", async () => {
  const listed = guest.ask({ op: "listFiles", path: "/x" }, deadline)
  const { stream } = await fake.opened()
  const entries = Array.from({ length: 1000 }, () => file)
  for (let count = 0; count <= 100 && !fake.isGone; count++) {
    fake.message(stream, { entries })
    await Bun.sleep(0)
  }
  expect((await failure(listed)).code).toBe("unavailable")
  expect(await guest.closed).toEqual({ reason: "a listing is longer than agreed" })
})

function message(stream: number, value: unknown): Uint8Array {
  return encodeFrame({ type: "message", stream, payload: Buffer.from(JSON.stringify(value)) })
}

function close(stream: number, value: unknown): Uint8Array {
  return encodeFrame({ type: "close", stream, payload: Buffer.from(JSON.stringify(value)) })
}
