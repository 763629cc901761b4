/**
 * The frozen generations: the host speaks to a guest of each as the host of its time did. The guest's part is recorded
 * from an agent of that generation (protocol/generations/README.md).
 */

import { afterEach, beforeEach, describe, expect, test } from "bun:test"
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { hostParts } from "../../test/support/host-parts.ts"
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
  "2.json": "0e983c98a7dda4cb1f6a57486b8ffc7b2bfa822aded6ed83bcd991cabe64eb60",
  "3.json": "689eb624c8470ce2f001f1e097325a095b3459718dea89f46b6f1d6b8fd67e1d",
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

  function recordedInput(name: string): Buffer {
    const steps = conversations.find((one) => one.name === name)?.steps ?? []
    const data = steps.filter(({ from, type }) => from === "host" && type === "data")
    return Buffer.concat(data.map(({ hex }) => Buffer.from(hex, "hex").subarray(13)))
  }

  /** Requests that no host of the generation sends. */
  const ofNoHost = ["an operation that the agent does not know", "a request that is no JSON"]
  const formerOperations = generation > 2 ? ["exec", "session_open"] : []
  const known = conversations.filter(
    ({ name, steps }) =>
      !ofNoHost.includes(name) && !steps.some(({ json }) => formerOperations.includes(opOf(json))),
  )

  test.each(known)("is understood: $name", async (conversation) => {
    const play = hostParts({ guest, values, inputOf: recordedInput })[conversation.name]
    if (!play) throw new Error("the host's part is missing")
    await Promise.all([recorded.play(conversation), play()])
  })
})

function opOf(json: unknown): string {
  return String((json as { op?: unknown } | undefined)?.op)
}
