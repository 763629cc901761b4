/** protocol/vectors.json, read by the host's end of the wire. */

import { describe, expect, test } from "bun:test"
import type { GuestQuestion, GuestQuestions } from "@bhatti/contract/guest"
import vectors from "../../protocol/vectors.json"
import { dialRequest, parsePorts } from "./dial.ts"
import { parseFileEvents, parseWatching } from "./file-watch.ts"
import { fileRequests, parseStat, readListing } from "./files.ts"
import {
  type Decoded,
  Decoder,
  encodeData,
  encodeDataAt,
  encodeEnd,
  encodeFrame,
  encodeHostPreamble,
  encodeWindow,
  type Frame,
  type FrameType,
  parseDataAt,
  WireError,
  wireLimits,
} from "./frame.ts"
import { earlierRequests, parseSessions, parseStarted, parseStartedSession } from "./generation-2.ts"
import { parseResult, requests } from "./message.ts"
import { parseNotice } from "./process-message.ts"
import { questions, requestOf } from "./questions.ts"
import { parseServices } from "./services.ts"

const unhex = (text: string) => Uint8Array.from(Buffer.from(text, "hex"))
const nonce = unhex(vectors.hostPreamble.nonce)
const guestPreamble = unhex(vectors.guestPreamble.hex)

const toFrame = (frame: { type: string; stream: number; payload: string }): Frame => ({
  type: frame.type as FrameType,
  stream: frame.stream,
  payload: unhex(frame.payload),
})

/** Decodes the bytes, given in pieces of a length. */
function decodeAll(nonceHex: string, bytes: Uint8Array, pieceBytes: number): unknown[] {
  const decoder = new Decoder(unhex(nonceHex))
  const events: unknown[] = []
  try {
    for (let at = 0; at < bytes.length; at += pieceBytes) {
      for (const decoded of decoder.decode(bytes.subarray(at, at + pieceBytes)))
        events.push(describeEvent(decoded))
    }
  } catch (error) {
    expect(error).toBeInstanceOf(WireError)
    events.push({ broken: true })
  }
  return events
}

function describeEvent(decoded: Decoded): unknown {
  if (decoded.kind === "preamble") return { preamble: { generation: decoded.generation } }
  const { type, stream, payload } = decoded.frame
  return { frame: { type, stream, payload: Buffer.from(payload).toString("hex") } }
}

describe("frames", () => {
  test.each(vectors.frames)("$name", ({ frame, hex }) => {
    expect(Buffer.from(encodeFrame(toFrame(frame))).toString("hex")).toBe(hex)
    const stream = Buffer.concat([guestPreamble, unhex(hex)])
    expect(decodeAll(vectors.guestPreamble.nonce, stream, stream.length).slice(1)).toEqual([{ frame }])
  })

  test("are made by the shorter ways as well", () => {
    expect(encodeData(7, 0, Buffer.from("a"))).toEqual(Buffer.from(hexOf("one byte of input"), "hex"))
    expect(encodeWindow(7, 65536)).toEqual(Buffer.from(hexOf("window of 65536"), "hex"))
    expect(encodeEnd(7, 0)).toEqual(Buffer.from(hexOf("end of input"), "hex"))
  })

  const hexOf = (name: string) => vectors.frames.find((vector) => vector.name === name)?.hex ?? ""
})

describe("places in the shared memory", () => {
  test.each(vectors.extents)("$name", ({ payload, channel, offset, length }) => {
    const extent = { offset, length }
    expect(parseDataAt(unhex(payload))).toEqual({ channel, extent })
    const frame = encodeFrame({ type: "data_at", stream: 7, payload: unhex(payload) })
    expect(encodeDataAt(7, channel, extent)).toEqual(frame)
  })

  test.each(vectors.badExtents)("$name is refused", ({ payload }) => {
    expect(() => parseDataAt(unhex(payload))).toThrow(WireError)
  })
})

describe("headers", () => {
  test.each(vectors.brokenHeaders)("$name is refused", ({ hex }) => {
    const decoder = new Decoder(nonce)
    expect(() => [...decoder.decode(Buffer.concat([guestPreamble, unhex(hex)]))]).toThrow(WireError)
  })

  test.each(vectors.wholeHeaders)("$name is waited for", ({ hex }) => {
    expect(
      decodeAll(vectors.guestPreamble.nonce, Buffer.concat([guestPreamble, unhex(hex)]), 5),
    ).toHaveLength(1)
  })
})

describe("streams", () => {
  test.each(vectors.hostReads)("$name", (vector) => {
    const bytes = unhex(vector.hex)
    for (const pieceBytes of [bytes.length, 1, 2, 13, 28]) {
      expect(decodeAll(vector.nonce, bytes, pieceBytes)).toEqual(vector.events)
    }
  })

  test("the host's preamble is encoded", () => {
    expect(Buffer.from(encodeHostPreamble(nonce)).toString("hex")).toBe(vectors.hostPreamble.hex)
    expect(encodeHostPreamble(nonce)).toHaveLength(wireLimits.preambleBytes)
  })
})

describe("messages", () => {
  const named = new Map(vectors.requests.map(({ name, json }) => [name, json]))

  test("requests are what the guest understands", () => {
    const moment = {
      entropy: Uint8Array.from({ length: 32 }, (_, index) => index),
      unixNs: 1_700_000_000_000_000_001n,
    }
    const identity = {
      hostname: "dev",
      machineId: "0123456789abcdef0123456789abcdef",
      env: { K: "V" },
      network: {
        mac: "02:00:00:00:00:01",
        address: "10.0.0.2",
        prefix: 24,
        gateway: "10.0.0.1",
        dns: ["10.0.0.1"],
        mtu: 1500,
      },
      growDisk: true,
    }
    const alone = { ...identity, env: {}, network: null, growDisk: false }
    const size = { rows: 24, cols: 80 }
    const asking = <Op extends keyof GuestQuestions>(question: GuestQuestion<Op>) =>
      requestOf(question, moment)
    const made: Record<string, unknown> = {
      ping: asking({ op: "ping" }),
      quiesce: asking({ op: "quiesce" }),
      "quiesce and scrub": asking({ op: "quiesce", untouchedMib: 300 }),
      "quiesce and hold": asking({ op: "quiesce", hold: true }),
      "start services": asking({
        op: "startServices",
        services: [
          {
            ...{ name: "web", argv: ["/bin/sh", "-c", "npm start"], restart: "on-failure", after: ["db"] },
            ...{ user: "root", cwd: "/srv" },
          },
          {
            ...{ name: "db", argv: ["/bin/sh", "-c", "redis-server"], restart: "always", after: [] },
            ...{ user: null, cwd: null },
          },
        ],
      }),
      "list services": asking({ op: "listServices" }),
      "set services": asking({
        op: "setServices",
        services: [
          {
            ...{ name: "web", argv: ["/bin/sh", "-c", "npm start"], restart: "always", after: [] },
            ...{ user: null, cwd: null, program: "npm" },
          },
        ],
      }),
      "restart a service": asking({ op: "controlService", service: "web", action: "restart" }),
      "start a clone": asking({ op: "startClone" }),
      "start the init": asking({ op: "startInit" }),
      "next timer": asking({ op: "nextTimer" }),
      shutdown: asking({ op: "shutdown" }),
      "personalise with a network": asking({ op: "personalise", identity }),
      "personalise alone": asking({ op: "personalise", identity: alone }),
      "personalise with the configuration of an image": asking({
        op: "personalise",
        identity: { ...alone, image: { user: "1001:0", workdir: "/app", env: { PATH: "/app/bin" } } },
      }),
      "exec with everything": earlierRequests.exec({
        argv: ["sh", "-c", 'echo ü "quoted"'],
        env: { A: "b=c" },
        cwd: "/tmp",
        user: "root",
        stdin: true,
        tty: { rows: 24, cols: 80, term: "xterm" },
      }),
      "exec with what is required": earlierRequests.exec({ argv: ["true"] }),
      refresh: asking({ op: "refresh" }),
      trim: asking({ op: "trim", budgetMs: 250 }),
      "trim and scrub": asking({ op: "trim", budgetMs: 2000, untouchedMib: 0 }),
      "session with everything": earlierRequests.open(
        {
          argv: ["vi", "a b"],
          env: { A: "b" },
          cwd: "/tmp",
          user: "root",
          name: "init",
          tty: { ...size, term: "xterm" },
        },
        { attach: true },
      ),
      "session alone": earlierRequests.open({ tty: size }, { attach: false }),
      attach: earlierRequests.attach({ process: "s1", tty: size }),
      "attach to the newest": earlierRequests.attach({ tty: size }),
      sessions: earlierRequests.list(),
      "kill a session": earlierRequests.kill("s1", "HUP"),
      "read a session": earlierRequests.read("init"),
      watch: requests.watch(),
      "read a file": fileRequests.readFile({ path: "a\nb" }),
      "read a part of a file": fileRequests.readFile({ path: "/x", offset: 4_294_967_296, limit: 0 }),
      "read a file through the shared memory": fileRequests.readFile({ path: "/x", shared: 1_048_576 }),
      "write a file": fileRequests.writeFile({ path: "/ü", mode: "0644", size: 5, parents: true }),
      "write a file of any size": fileRequests.writeFile({ path: "x" }),
      "write a file with attributes": fileRequests.writeFile({
        path: "x",
        attributes: { "user.a": Buffer.of(255) },
      }),
      "change attributes": asking({
        op: "setAttributes",
        path: "/x",
        set: { "user.a": Buffer.of(255) },
        remove: ["user.b"],
      }),
      list: asking({ op: "listFiles", path: "/x" }),
      stat: asking({ op: "statFile", path: "/x" }),
      remove: asking({ op: "removeFile", path: "/x", recursive: true }),
      mkdir: asking({ op: "makeDirectory", path: "/x", parents: true, mode: "0755" }),
      move: asking({ op: "moveFile", from: "/x", to: "/y" }),
      "watch a directory tree": asking({ op: "openWatch", path: "/x", recursive: true }),
      "read a watch": asking({ op: "readWatch", watch: "w0f", after: 4_294_967_296 }),
      "wait for a watch": asking({ op: "awaitWatch", watch: "w0f", after: 0 }),
      "remove a watch": asking({ op: "removeWatch", watch: "w0f" }),
      "pack with holes": fileRequests.readArchive({ path: "/x", sparse: true }),
      pack: fileRequests.readArchive({ path: "/x" }),
      "pack through the shared memory": fileRequests.readArchive({ path: "/x", shared: 1_310_720 }),
      "pack exactly": fileRequests.readArchive({ path: "/x", exact: true }),
      "unpack exactly, under another name": fileRequests.writeArchive({ path: "/x", exact: true, root: "" }),
      unpack: fileRequests.writeArchive({ path: "/x" }),
      dial: dialRequest({ port: 3000 }),
      ports: asking({ op: "ports" }),
    }
    expect(Object.keys(made).sort()).toEqual([...named.keys()].sort())
    for (const [name, json] of named) {
      expect(made[name]).toEqual(json)
      // The guest reads the name of an operation without parsing the rest only there.
      if (!JSON.stringify(json).includes("archive_"))
        expect(JSON.stringify(made[name])).toStartWith('{"op":"')
    }
  })

  test("messages to a process are what the guest understands", () => {
    const made: unknown[] = [
      earlierRequests.signal({ signal: "INT" }),
      requests.resize({ rows: 50, cols: 132 }),
    ]
    expect(made).toEqual(vectors.toProcess.map(({ json }) => json))
  })

  test.each(vectors.fromProcess)("$name", ({ json, pid }) => {
    expect(parseStarted(Buffer.from(JSON.stringify(json)))).toMatchObject({ pid })
  })

  test("answers are understood", () => {
    const answer = (name: string) => vectors.results.find((vector) => vector.name === name)?.ok
    const message = (name: string) =>
      Buffer.from(vectors.messages.find((vector) => vector.name === name)?.text ?? "")
    expect(parseStartedSession(answer("a session alone"))).toBe("s1")
    expect(
      parseSessions(answer("list of sessions")).map(({ id, ended }) => [id, ended?.exitCode ?? null]),
    ).toEqual([
      ["s1", null],
      ["s2", 0],
    ])
    expect(parseNotice(message("a session's end is told"))).toEqual({
      process: "s1",
      name: "init",
      ended: { exitCode: 3, signal: null, reason: "exited", by: null, detail: null },
    })
    const { parse: parseNextTimer } = questions.nextTimer.read()
    expect([parseNextTimer(answer("a timer")), parseNextTimer(answer("no timer"))]).toEqual([
      { dueMs: 19_500 },
      { dueMs: null },
    ])
    expect(parseStat(answer("one file"))).toMatchObject({
      name: "a",
      target: null,
      version: "c-17979cfe362a0000-5",
      allocated: 0,
      attributes: { "user.a": Buffer.of(255) },
    })
    expect(parsePorts(answer("listening ports"))).toEqual([{ port: 3000, address: "::1" }])
    expect(parseWatching(answer("a watch"))).toEqual({ watch: "w0f" })
    const { events, next, ended } = parseFileEvents(answer("events of a watch"))
    expect(events.map(({ type, path, to, sequence }) => [type, path, to, sequence])).toEqual([
      ["create", "a", null, 7],
      ["rename", "a", "b/c", 8],
      ["lost", ".", null, 9],
    ])
    expect([next, ended]).toEqual([9, null])
    expect(parseFileEvents(answer("the end of a watch"))).toEqual({
      events: [],
      next: 9,
      ended: "it is gone",
    })
    expect(parseServices(answer("services"))).toMatchObject([
      { name: "web", state: "backing_off", ended: { exitCode: 3 }, isFailing: true, retryMs: 1600 },
    ])
    const listing = readListing()
    expect(listing.onMessage?.(message("entries"))).toBe(true)
    expect(listing.parse({ truncated: false }).files.map(({ type, target }) => [type, target])).toEqual([
      ["file", null],
      ["symlink", "a"],
    ])
  })

  test.each(vectors.results)("result: $name", ({ text, ok, error }) => {
    const result = parseResult(Buffer.from(text))
    if (result.kind === "ok") expect<unknown>(result.value).toEqual(ok)
    else {
      const { code, message, reason } = result.error
      expect<unknown>({ code, message, ...(reason !== undefined && { reason }) }).toEqual(error)
    }
  })

  test.each(vectors.badResults)("bad result: $name", ({ text }) => {
    expect(() => parseResult(Buffer.from(text))).toThrow(WireError)
  })
})
