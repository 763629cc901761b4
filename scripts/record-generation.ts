/**
 * Records the example conversations of a generation: plays the host's side of `generation-plays.ts` to a real agent and
 * writes both sides to `protocol/generations/N.json`, whose other parts it leaves. Run it in a network of its own, so
 * that the agent sees no other port than the play's:
 *
 *   (cd agent && CGO_ENABLED=0 go test -c -o /tmp/agent.test .)
 *   unshare --net sh -c 'ip link set lo up; bun run scripts/record-generation.ts 3 /tmp/agent.test'
 */

import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs"
import { dirname, join, resolve } from "node:path"
import { encodeData, encodeFrame, type FrameType } from "../src/guest/frame.ts"
import { type Act, files, type Play, plays, values } from "./generation-plays.ts"

const types: FrameType[] = ["open", "data", "window", "end", "message", "close", "data_at"]
const headerBytes = 12
const preambleBytes = 28
const deadlineMs = 10_000
/** Streams before it are for what is not recorded. */
const firstStream = 11

type Step = { from: "host" | "guest"; type: FrameType; stream: number } & Record<string, unknown>

class Recording {
  readonly steps: Step[] = []
  readonly #socket: Bun.Socket
  #bytes: Buffer = Buffer.alloc(0)
  readonly #unread: Step[] = []
  #changed = Promise.withResolvers<void>()
  isRecording = false
  /** The id of the last watch that was answered. */
  watch: string | undefined

  private constructor(socket: Bun.Socket) {
    this.#socket = socket
  }

  static async open(path: string, generation: number, preambleNonce: Buffer): Promise<Recording> {
    let recording: Recording | undefined
    const socket = await within("the agent listens", async () => {
      try {
        return await Bun.connect({
          unix: path,
          socket: { data: (_, bytes) => recording?.receive(bytes) },
        })
      } catch {
        return undefined
      }
    })
    recording = new Recording(socket)
    socket.write(
      Buffer.concat([
        Buffer.of(0xb4),
        Buffer.from("BHATTI\n"),
        preambleNonce,
        Buffer.of(0, generation, 0, 0),
      ]),
    )
    const answer = await recording.take(preambleBytes)
    if (answer.readUInt16BE(24) !== generation) throw new Error(`the agent answers ${answer.toString("hex")}`)
    return recording
  }

  receive(bytes: Uint8Array): void {
    this.#bytes = Buffer.concat([this.#bytes, bytes])
    this.#changed.resolve()
    this.#changed = Promise.withResolvers<void>()
  }

  async take(count: number): Promise<Buffer> {
    await within("the agent answers", async () => {
      if (this.#bytes.length >= count) return true
      await Promise.race([this.#changed.promise, Bun.sleep(20)])
      return undefined
    })
    const taken = this.#bytes.subarray(0, count)
    this.#bytes = this.#bytes.subarray(count)
    return taken
  }

  send(bytes: Uint8Array): void {
    this.#socket.write(bytes)
    this.#note("host", Buffer.from(bytes))
  }

  /** The next frame of a stream; those of others wait for their turn. */
  async read(stream: number): Promise<Step> {
    for (;;) {
      const waiting = this.#unread.findIndex((step) => step.stream === stream)
      const [found] = waiting < 0 ? [] : this.#unread.splice(waiting, 1)
      if (found) return found
      const header = await this.take(headerBytes)
      const payload = await this.take(header.readUInt32BE(8))
      this.#unread.push(this.#note("guest", Buffer.concat([header, payload])))
    }
  }

  close(): void {
    this.#socket.end()
  }

  #note(from: "host" | "guest", bytes: Buffer): Step {
    const step = describe(from, bytes)
    if (this.isRecording) this.steps.push(step)
    this.watch = /"watch":"(\w+)"/.exec(JSON.stringify(step["json"] ?? ""))?.[1] ?? this.watch
    return step
  }
}

function describe(from: "host" | "guest", bytes: Buffer): Step {
  const type = types[bytes.readUInt8(0) - 1] ?? "open"
  const payload = bytes.subarray(headerBytes)
  const step: Step = { from, type, stream: bytes.readUInt32BE(4) }
  if (["open", "message", "close"].includes(type) && payload.length > 0) step["json"] = readJson(payload)
  if (type === "data" || type === "end") step["channel"] = payload[0]
  if (type === "data") {
    const text = payload.subarray(1).toString()
    if (Buffer.from(text).equals(payload.subarray(1)) && !text.includes("\0")) step["text"] = text
  }
  if (type === "window") step["credit"] = payload.readUInt32BE(0)
  return { ...step, hex: bytes.toString("hex") }
}

function readJson(payload: Buffer): unknown {
  try {
    return JSON.parse(payload.toString())
  } catch {
    return undefined
  }
}

async function within<T>(what: string, look: () => Promise<T | undefined>): Promise<T> {
  for (const end = performance.now() + deadlineMs; ; await Bun.sleep(5)) {
    const found = await look()
    if (found !== undefined) return found
    if (performance.now() > end) throw new Error(`waited in vain: ${what}`)
  }
}

async function perform(recording: Recording, act: Act): Promise<void> {
  const stream = firstStream + (act.stream ?? 0)
  if ("open" in act) recording.send(encodeFrame({ type: "open", stream, payload: encode(act.open) }))
  else if ("watched" in act)
    recording.send(
      encodeFrame({ type: "open", stream, payload: encode({ ...act.watched, watch: recording.watch }) }),
    )
  else if ("message" in act)
    recording.send(encodeFrame({ type: "message", stream, payload: encode(act.message) }))
  else if ("data" in act) recording.send(encodeData(stream, 0, Buffer.from(act.data)))
  else if ("end" in act) recording.send(encodeFrame({ type: "end", stream, payload: Uint8Array.of(0) }))
  else if ("close" in act) recording.send(encodeFrame({ type: "close", stream, payload: new Uint8Array() }))
  else {
    let text = ""
    for (;;) {
      const step = await recording.read(stream)
      if (step.type === "data") text += step["text"] ?? ""
      if (
        act.until === step.type ||
        (act.until !== "close" && act.until !== "message" && text.includes(act.until))
      )
        return
    }
  }
}

const encode = (value: unknown) => Buffer.from(typeof value === "string" ? value : JSON.stringify(value))

async function record(play: Play, agent: string, generation: number): Promise<object> {
  const home = mkdtempSync("/tmp/bhatti-record-")
  rmSync(values.directory, { recursive: true, force: true })
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(values.directory, name)), { recursive: true })
    writeFileSync(join(values.directory, name), text, { mode: 0o644 })
  }
  writeFileSync(join(home, "shared"), "")
  truncateSync(join(home, "shared"), 2 << 20)
  const socket = join(home, "agent.sock")
  const child = Bun.spawn([agent, "-test.run=^TestServeOnSocket$", "-test.timeout=0"], {
    cwd: home,
    env: { ...process.env, LOHAR_TEST_SOCKET: socket, LOHAR_TEST_SHARED: join(home, "shared") },
    stdout: "ignore",
    stderr: "inherit",
  })
  using _listener = Bun.listen({
    hostname: "127.0.0.1",
    port: values.port,
    socket: { data: (one, bytes) => void one.write(bytes), end: (one) => void one.end() },
  })
  try {
    const recording = await Recording.open(socket, generation, Buffer.alloc(16, 7))
    if (!play.isFresh) {
      recording.send(encodeFrame({ type: "open", stream: 1, payload: encode(values.personalise) }))
      await recording.read(1)
    }
    recording.isRecording = true
    for (const act of play.acts) await perform(recording, act)
    recording.close()
    const { name, isFresh = false, dataVaries = false } = play
    return { name, personalised: !isFresh, data_varies: dataVaries, steps: recording.steps }
  } finally {
    child.kill()
    await child.exited
    rmSync(home, { recursive: true })
    rmSync(values.directory, { recursive: true, force: true })
  }
}

const [, , generationText = "", agent = ""] = process.argv
const generation = Number(generationText)
const path = resolve(import.meta.dir, `../protocol/generations/${generation}.json`)
const conversations: object[] = []
for (const play of plays) {
  if (play.since !== undefined && play.since > generation) continue
  try {
    conversations.push(await record(play, agent, generation))
  } catch (cause) {
    throw new Error(`"${play.name}" cannot be recorded`, { cause })
  }
}
const written = { ...(await Bun.file(path).json()), values, files, conversations }
await Bun.write(path, `${JSON.stringify(written, null, 1)}\n`)
