/** The decoder against bytes that nobody has thought of. */

import { expect, test } from "bun:test"
import fc from "fast-check"
import { type Decoded, Decoder, encodeFrame, type Frame, WireError, wireLimits } from "./frame.ts"
import { parseStarted } from "./generation-2.ts"
import { parseResult } from "./message.ts"
import { parseAttached, parseEnd, parseOutcome, parseSkipped, readProcesses } from "./process-message.ts"
import { questions } from "./questions.ts"

const nonce = new Uint8Array(16).fill(7)
const preamble = Buffer.concat([Buffer.of(0xb4), Buffer.from("LOHAR\r\n"), nonce, Buffer.of(0, 1, 0, 0)])

const bytes = (min: number, max: number) => fc.uint8Array({ minLength: min, maxLength: max })
const stream = fc.integer({ min: 1, max: wireLimits.streamMax })
const frame: fc.Arbitrary<Frame> = fc.oneof(
  fc.record({ type: fc.constant("data" as const), stream, payload: bytes(2, 600) }),
  fc.record({ type: fc.constant("window" as const), stream, payload: bytes(4, 4) }),
  fc.record({ type: fc.constant("end" as const), stream, payload: bytes(1, 1) }),
  fc.record({
    type: fc.constantFrom("open" as const, "message" as const, "close" as const),
    stream,
    payload: bytes(0, 600),
  }),
)

/** Cuts bytes at the given places. */
function pieces(whole: Uint8Array, cuts: number[]): Uint8Array[] {
  const places = [...new Set(cuts.map((cut) => cut % (whole.length + 1)))].sort((a, b) => a - b)
  return [...places, whole.length].map((place, index) => whole.slice(places[index - 1] ?? 0, place))
}

function decode(chunks: Uint8Array[]): { events: Decoded[]; isBroken: boolean } {
  const decoder = new Decoder(nonce)
  const events: Decoded[] = []
  try {
    for (const chunk of chunks) for (const decoded of decoder.decode(chunk)) events.push(decoded)
  } catch (error) {
    if (!(error instanceof WireError)) throw error
    return { events, isBroken: true }
  }
  return { events, isBroken: false }
}

const cuts = fc.array(fc.nat(100_000), { maxLength: 20 })

test("decoding is the inverse of encoding, however the bytes are cut", () => {
  fc.assert(
    fc.property(fc.array(frame, { maxLength: 12 }), cuts, (frames, where) => {
      const whole = Buffer.concat([preamble, ...frames.map(encodeFrame)])
      const { events, isBroken } = decode(pieces(whole, where))
      expect(isBroken).toBe(false)
      expect(events).toEqual([
        { kind: "preamble", generation: 1 },
        ...frames.map((frame) => ({ kind: "frame" as const, frame })),
      ])
    }),
  )
})

test("any bytes are frames or a WireError, and the same however they are cut", () => {
  const garbage = fc.oneof(
    bytes(0, 400),
    fc.tuple(frame, bytes(0, 40)).map(([whole, rest]) => Buffer.concat([encodeFrame(whole), rest])),
  )
  fc.assert(
    fc.property(garbage, fc.boolean(), cuts, (rest, isGreeted, where) => {
      const whole = isGreeted ? Buffer.concat([preamble, rest]) : rest
      expect(decode(pieces(whole, where))).toEqual(decode([whole]))
    }),
  )
})

test("any JSON is a message or a WireError", () => {
  const onlyWireErrors = (parse: () => unknown) => {
    try {
      parse()
    } catch (error) {
      if (!(error instanceof WireError)) throw error
    }
  }
  fc.assert(
    fc.property(fc.oneof(fc.json(), fc.string()), fc.jsonValue(), (text, value) => {
      onlyWireErrors(() => parseResult(Buffer.from(text)))
      for (const parse of [parseStarted, parseAttached, parseSkipped, readProcesses().onMessage])
        onlyWireErrors(() => parse?.(Buffer.from(text)))
      onlyWireErrors(() => questions.ping.read().parse(value))
      onlyWireErrors(() => questions.personalise.read().parse(value))
      for (const parse of [parseEnd, parseOutcome]) onlyWireErrors(() => parse(value))
    }),
  )
})

test("a payload does not keep the chunk it came in", () => {
  const chunk = Buffer.concat([
    preamble,
    encodeFrame({ type: "data", stream: 1, payload: Uint8Array.of(1, 2) }),
    new Uint8Array(65_536),
  ])
  const decoder = new Decoder(nonce)
  for (const decoded of decoder.decode(chunk.subarray(0, preamble.length + 14))) {
    if (decoded.kind === "frame") expect(decoded.frame.payload.buffer.byteLength).toBe(2)
  }
})

test("a frame in many pieces is put together in linear time", () => {
  const payload = new Uint8Array(wireLimits.jsonBytesMax).fill(32)
  const whole = Buffer.concat([
    preamble,
    ...Array.from({ length: 8 }, () => encodeFrame({ type: "message", stream: 1, payload })),
  ])
  const chunks = Array.from({ length: Math.ceil(whole.length / 64) }, (_, index) =>
    whole.subarray(index * 64, index * 64 + 64),
  )
  const begin = performance.now()
  expect(decode(chunks).events).toHaveLength(9)
  // 2 MB in 32 768 pieces: copying what is there for each piece would move 4 GB.
  expect(performance.now() - begin).toBeLessThan(1500)
})
