/**
 * The frozen generations: the host speaks to a guest of each as the host of its time did. The guest's part is recorded
 * from an agent of that generation (protocol/generations/README.md).
 */

import { afterEach, beforeEach, describe, expect, test } from "bun:test"
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { type RecordedConversation, RecordedGuest } from "../../test/support/recorded-guest.ts"
import { Decoder, encodeFrame, encodeHostPreamble, type FrameType, wireLimits } from "./frame.ts"
import { type Guest, openGuest } from "./guest.ts"

const folder = resolve(import.meta.dir, "../../protocol/generations")
const deadline = { deadlineMs: 5000 }

type Fields = Record<string, string>
type Operation = {
  request: Fields
  host_messages?: Fields
  guest_messages?: Fields
  host_channels?: number[]
  guest_channels?: number[]
  answer: Fields
  errors?: string[]
}
type Generation = {
  generation: number
  preamble: { example: { nonce: string; host: string; guest: string } }
  frames: { header_bytes: number; mark: string; types: Record<string, { number: number }> }
  limits: Record<string, number>
  error: Fields
  error_codes: string[]
  operations: Record<string, Operation>
  values: { directory: string; user: string; port: number; personalise: object }
  conversations: (RecordedConversation & { personalised: boolean })[]
}

/** Each file's digest: a file never changes once a release has its generation. */
const frozen: Record<string, string> = {
  "2.json": "cd7baf3bbad248b4d7aa3ea8fafaa732904c4d0f32a7aa794df9953256a4c596",
}

const generations = readdirSync(folder)
  .filter((name) => name.endsWith(".json"))
  .map((name) => ({ name, text: readFileSync(join(folder, name), "utf8") }))
const parsed = generations.map(({ text }) => JSON.parse(text) as Generation)

test("no frozen file was changed", () => {
  for (const [name, digest] of Object.entries(frozen)) {
    const text = generations.find((one) => one.name === name)?.text ?? ""
    expect(new Bun.CryptoHasher("sha256").update(text).digest("hex"), name).toBe(digest)
  }
})

describe.each(parsed)("generation $generation", (described) => {
  test("its conversations use the fields that it describes, and show every operation", () => {
    const shown = new Set<string>()
    for (const { name, steps } of described.conversations) {
      const opened = new Map<number, Operation>()
      for (const step of steps) {
        const json = step.json as Record<string, unknown> | undefined
        if (step.type === "open" && json) {
          const op = String(json["op"])
          shown.add(op)
          const operation = described.operations[op]
          if (operation) opened.set(step.stream, operation)
          expectFields(`${name}: ${op}`, omit(json, "op"), operation?.request ?? {})
        }
        const operation = opened.get(step.stream)
        if (!operation || !json) continue
        const messages = step.from === "host" ? operation.host_messages : operation.guest_messages
        if (step.type === "message") expectFields(`${name}: message`, json, messages ?? {})
        if (step.type !== "close") continue
        const { ok, error } = json as { ok?: object; error?: { code: string } }
        if (ok) expectFields(`${name}: answer`, ok, operation.answer)
        if (error) {
          expectFields(`${name}: error`, error, described.error)
          expect(described.error_codes).toContain(error.code)
        }
      }
    }
    expect(Object.keys(described.operations).filter((op) => !shown.has(op))).toEqual([])
  })

  test("its preambles, frames and limits are the host's", () => {
    const { nonce, host, guest } = described.preamble.example
    const nonceBytes = Buffer.from(nonce, "hex")
    const generationAt = 2 * (wireLimits.preambleBytes - 4)
    const ours = Buffer.from(encodeHostPreamble(nonceBytes)).toString("hex")
    expect(ours.slice(0, generationAt)).toBe(host.slice(0, generationAt))
    expect([...new Decoder(nonceBytes).decode(Buffer.from(guest, "hex"))]).toEqual([
      { kind: "preamble", generation: described.generation },
    ])
    const { headerBytes, windowBytes, streamsMax, sharedPieceBytesMax } = wireLimits
    expect(described.limits).toMatchObject({
      ...{ window_bytes: windowBytes, streams: streamsMax, shared_piece_bytes: sharedPieceBytesMax },
    })
    expect(described.frames.header_bytes).toBe(headerBytes)
    for (const [type, { number }] of Object.entries(described.frames.types)) {
      const frame = encodeFrame({ type: type as FrameType, stream: 1, payload: new Uint8Array() })
      expect(Buffer.from(frame.subarray(0, 4)).toString("hex"), type).toBe(
        `${number.toString(16).padStart(2, "0")}${described.frames.mark}`,
      )
    }
  })

  test("its bytes are the frames that it names", () => {
    for (const { steps } of described.conversations) {
      for (const { type, stream, hex } of steps) {
        const payload = Buffer.from(hex, "hex").subarray(12)
        expect(Buffer.from(encodeFrame({ type: type as FrameType, stream, payload })).toString("hex")).toBe(
          hex,
        )
      }
    }
  })
})

function expectFields(what: string, object: object, fields: Fields): void {
  const given = Object.keys(object)
  const unknown = given.filter((key) => !(key in fields) && !(`${key}?` in fields))
  const missing = Object.keys(fields).filter((key) => !key.endsWith("?") && !given.includes(key))
  expect({ what, unknown, missing }).toEqual({ what, unknown: [], missing: [] })
}

function omit(object: Record<string, unknown>, key: string): object {
  return Object.fromEntries(Object.entries(object).filter(([name]) => name !== key))
}

describe.each(parsed)("a guest of generation $generation", ({ generation, conversations, values }) => {
  let directory: string
  let recorded: RecordedGuest
  let guest: Guest

  beforeEach(async () => {
    directory = mkdtempSync(join(tmpdir(), "bhatti-generation-"))
    recorded = new RecordedGuest(directory)
    guest = await openGuest({ socketPath: recorded.socketPath })
    await recorded.greet(generation)
    await guest.waitReady(deadline)
  })
  afterEach(() => {
    guest.close()
    recorded.stop()
    rmSync(directory, { recursive: true })
  })

  const { user, port } = values
  const at = (name: string) => join(values.directory, name)
  const size = { rows: 30, cols: 100 }
  const tty = { rows: 24, cols: 80, term: "xterm" }
  const command = (argv: string[]) => ({ argv, user, cwd: "/", onDisconnect: "kill" as const })
  const session = (argv: string[]) => ({ argv, user, cwd: "/", tty, onDisconnect: "keep" as const })
  const endedWith = (exitCode: number, signal: string | null) =>
    expect.objectContaining({ state: "ended", ended: expect.objectContaining({ exitCode, signal }) })
  const run = async (argv: string[]) => {
    const process = guest.processes.start(command(argv))
    const texts = { stdout: "", stderr: "" }
    for await (const { channel, bytes } of process.output) texts[channel] += Buffer.from(bytes).toString()
    return { ...texts, outcome: await process.result }
  }
  const identity = {
    ...{ hostname: "dev", machineId: "0123456789abcdef0123456789abcdef" },
    ...{ env: { SANDBOX: "yes" }, network: null, growDisk: false },
  }
  const file = { name: "hello.txt", size: 6, mode: "0644", type: "file", owner: "root" }

  /** The host's part of each conversation. */
  const plays: Record<string, () => Promise<void>> = {
    ping: async () =>
      expect(await guest.ask({ op: "ping" }, deadline)).toMatchObject({ personalised: false }),
    "a command before the identity": async () =>
      expect(await failureOf(run(["true"]))).toMatchObject({ code: "conflict" }),
    personalise: async () =>
      expect(await guest.ask({ op: "personalise", identity }, deadline)).toMatchObject({ bootId: "test" }),
    refresh: async () => void (await guest.ask({ op: "refresh" }, deadline)),
    exec: async () =>
      expect(await run(["sh", "-c", "echo $SANDBOX; echo err >&2; exit 7"])).toEqual({
        ...{ stdout: "yes\n", stderr: "err\n", outcome: endedWith(7, null) },
      }),
    "exec with input": async () => {
      const process = guest.processes.start({ ...command(["cat"]), stdin: true, env: { KEY: "value" } })
      await process.attached
      await process.write(Buffer.from("in\n"))
      for await (const { bytes } of process.output) {
        expect(Buffer.from(bytes).toString()).toBe("in\n")
        process.endInput()
      }
      expect(await process.result).toEqual(endedWith(0, null))
    },
    "exec with a signal": async () => {
      const process = guest.processes.start(command(["sleep", "100"]))
      expect(await process.attached).toMatchObject({ pid: expect.any(Number) })
      process.signal({ signal: "TERM" })
      expect(await process.result).toEqual(endedWith(143, "TERM"))
    },
    "exec that its client leaves": async () => {
      const process = guest.processes.start(command(["sleep", "100"]))
      await process.attached
      process.kill("user")
      expect(await process.result).toEqual(endedWith(137, "KILL"))
    },
    "exec with a terminal": async () => {
      const argv = ["sh", "-c", "stty size; read line; stty size"]
      const process = guest.processes.start({ ...command(argv), stdin: true, tty })
      let text = ""
      for await (const { bytes } of process.output) {
        text += Buffer.from(bytes).toString()
        if (text !== "24 80\r\n") continue
        process.resize({ rows: 40, cols: 120 })
        await process.write(Buffer.from("go\n"))
      }
      expect(text).toBe("24 80\r\ngo\r\n40 120\r\n")
      expect(await process.result).toEqual(endedWith(0, null))
    },
    "exec of no program": async () =>
      expect(await failureOf(run(["/no/such/program"]))).toMatchObject({ code: "not_found" }),
    "exec of a file that is none": async () =>
      expect(await failureOf(run(["/etc/passwd"]))).toMatchObject({ code: "invalid" }),
    "a session": async () => {
      const first = guest.processes.start({ ...session(["cat"]), name: "kept" })
      expect(await first.attached).toMatchObject({ id: "s1", name: "kept" })
      await first.write(Buffer.from("first\r"))
      await seen(bytesOf(first.output), "first\r\nfirst\r\n")
      first.leave()
      expect(await first.result).toEqual({ state: "left" })
      const second = guest.processes.attach({ process: "kept", mode: "drive", tty: size })
      await seen(bytesOf(second.output), "\u001b8")
      expect(await guest.processes.list(deadline)).toMatchObject([{ id: "s1", ended: null, driven: true }])
      const kept = guest.processes.attach({ process: "kept", mode: "watch", follow: false })
      await seen(bytesOf(kept.output), "first\r\nfirst\r\n")
      expect(await kept.result).toEqual({ state: "left" })
      const third = guest.processes.attach({ process: "kept", mode: "drive", tty: size })
      expect(await second.result).toEqual({ state: "taken_over" })
      await guest.processes.signal("kept", { signal: "KILL" }, deadline)
      expect(await third.result).toEqual(endedWith(137, "KILL"))
    },
    "the end of a session that nobody is attached to": async () => {
      const ended = Promise.withResolvers<unknown>()
      const ignore = () => undefined
      guest.watch({
        onNamedEnded: ended.resolve,
        onAbnormalEnd: ignore,
        onMemoryKill: ignore,
        onServiceFailing: ignore,
      })
      const start = { ...session(["sh", "-c", "sleep 0.3; exit 3"]), name: "job" }
      const started = await guest.processes.startDetached(start, deadline)
      expect(started).toMatchObject({ process: { id: "s1" }, isNew: true })
      expect(await ended.promise).toMatchObject({ process: "s1", name: "job", ended: { exitCode: 3 } })
      await guest.ask({ op: "quiesce" }, deadline)
    },
    file_read: async () => {
      const download = guest.open({ op: "readFile", path: at("hello.txt") })
      expect(await download.file).toMatchObject(file)
      expect(await textOf(download.output)).toBe("hello\n")
      expect(await download.result).toEqual({ bytes: 6 })
    },
    "file_read of a part": async () => {
      const download = guest.open({ op: "readFile", path: at("hello.txt"), offset: 1, limit: 3 })
      expect(await textOf(download.output)).toBe("ell")
    },
    "file_read of nothing": async () =>
      expect(await failureOf(guest.open({ op: "readFile", path: at("missing") }).file)).toMatchObject({
        code: "not_found",
      }),
    file_write: async () => {
      const path = at("new/file.txt")
      const upload = guest.open({ op: "writeFile", path, mode: "0640", size: 4, parents: true })
      await upload.write(Buffer.from("new\n"))
      upload.endInput()
      expect(await upload.result).toMatchObject({ bytes: 4 })
    },
    file_owner: async () =>
      expect(await guest.ask({ op: "findOwner", owner: user }, deadline)).toEqual({ uid: 0, gid: 0 }),
    file_list: async () => {
      const listed = await guest.ask({ op: "listFiles", path: values.directory }, deadline)
      expect(listed).toMatchObject({ files: [file, { name: "tree", type: "directory" }], isTruncated: false })
    },
    file_stat: async () =>
      expect(await guest.ask({ op: "statFile", path: at("hello.txt") }, deadline)).toMatchObject(file),
    file_remove: async () =>
      void (await guest.ask({ op: "removeFile", path: at("tree"), recursive: true }, deadline)),
    file_mkdir: async () => {
      const fields = { path: at("made/below"), parents: true, mode: "0755" }
      await guest.ask({ op: "makeDirectory", ...fields }, deadline)
    },
    file_move: async () => {
      await guest.ask({ op: "moveFile", from: at("hello.txt"), to: at("moved.txt") }, deadline)
    },
    archive_read: async () => {
      const archive = guest.open({ op: "readArchive", path: at("tree") })
      expect(await textOf(archive.output)).toContain("tree/a.txt")
      expect(await archive.result).toEqual({ entries: 4, bytes: 5 })
    },
    archive_write: async () => {
      const archive = guest.open({ op: "writeArchive", path: values.directory })
      await archive.write(recordedInput("archive_write"))
      archive.endInput()
      expect(await archive.result).toEqual({ entries: 1, bytes: 4 })
    },
    dial: async () => {
      const connection = guest.open({ op: "dial", port })
      await connection.connected
      await connection.write(Buffer.from("echo"))
      await seen(connection.output, "echo")
      connection.endInput()
      await connection.result
    },
    "dial of a closed port": async () =>
      expect(await failureOf(guest.open({ op: "dial", port: 1 }).connected)).toMatchObject({
        code: "unavailable",
      }),
    ports: async () =>
      expect(await guest.ask({ op: "ports" }, deadline)).toEqual([{ port, address: "127.0.0.1" }]),
    trim: async () => void (await guest.ask({ op: "trim", budgetMs: 250 }, deadline)),
    next_timer: async () =>
      expect(await guest.ask({ op: "nextTimer" }, deadline)).toEqual({ dueMs: expect.any(Number) }),
    quiesce: async () => void (await guest.ask({ op: "quiesce" }, deadline)),
    shutdown: async () => void (await guest.ask({ op: "shutdown" }, deadline)),
  }

  function recordedInput(name: string): Buffer {
    const steps = conversations.find((one) => one.name === name)?.steps ?? []
    const data = steps.filter(({ from, type }) => from === "host" && type === "data")
    return Buffer.concat(data.map(({ hex }) => Buffer.from(hex, "hex").subarray(13)))
  }

  /** Requests that no host sends. */
  const ofNoHost = ["an operation that the agent does not know", "a request that is no JSON"]
  const known = conversations.filter(({ name }) => !ofNoHost.includes(name))

  test.each(known)("is understood: $name", async (conversation) => {
    const play = plays[conversation.name]
    if (!play) throw new Error("the host's part is missing")
    await Promise.all([recorded.play(conversation), play()])
  })
})

async function* bytesOf(output: AsyncIterable<{ bytes: Uint8Array }>): AsyncIterable<Uint8Array> {
  for await (const { bytes } of output) yield bytes
}

async function textOf(output: AsyncIterable<Uint8Array>): Promise<string> {
  return Buffer.concat(await Array.fromAsync(output)).toString()
}

/** Reads until a text has come. */
async function seen(output: AsyncIterable<Uint8Array>, wanted: string): Promise<void> {
  let text = ""
  const pieces = output[Symbol.asyncIterator]()
  while (!text.includes(wanted)) {
    const { value, done } = await pieces.next()
    if (done) throw new Error(`it ended after ${JSON.stringify(text)}`)
    text += Buffer.from(value).toString()
  }
}

function failureOf(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => "it succeeded",
    (error: unknown) => error,
  )
}
