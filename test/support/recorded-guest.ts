/** A guest that plays its part of a recorded conversation, as an agent of that generation spoke it. */

import { expect } from "bun:test"
import type { FrameType } from "../../src/guest/frame.ts"
import { FakeGuest, type HostFrame } from "./fake-guest.ts"

export type RecordedStep = {
  from: string
  type: string
  stream: number
  hex: string
  json?: unknown
}
export type RecordedConversation = { name: string; steps: RecordedStep[] }

const headerBytes = 12
const streamAt = 4
/** Fields with the time or with randomness. */
const momentary = ["entropy", "unix_ns"]

export class RecordedGuest extends FakeGuest {
  readonly #streams = new Map<number, number>()
  readonly #data = new Map<number, Buffer>()

  /** Throws if the host says something else than the host that was recorded. */
  async play(conversation: RecordedConversation): Promise<void> {
    for (const step of conversation.steps) {
      if (step.from === "host") await this.#hear(step)
      else this.#say(step)
    }
  }

  #say(step: RecordedStep): void {
    const bytes = Buffer.from(step.hex, "hex")
    bytes.writeUInt32BE(this.#streams.get(step.stream) ?? 0, streamAt)
    this.send(bytes)
  }

  async #hear(step: RecordedStep): Promise<void> {
    const payload = Buffer.from(step.hex, "hex").subarray(headerBytes)
    if (step.type === "data") return this.#hearData(step.stream, payload)
    const frame = await this.#next(step.type as FrameType)
    if (step.type === "open") this.#streams.set(step.stream, frame.stream)
    expect(frame.stream).toBe(this.#streams.get(step.stream) ?? 0)
    if (step.type === "open" || step.type === "message")
      expect(JSON.parse(frame.payload.toString())).toMatchObject(withoutMoment(step.json))
  }

  /** The host may cut its bytes in other pieces. */
  async #hearData(stream: number, recorded: Buffer): Promise<void> {
    let heard = this.#data.get(stream) ?? Buffer.alloc(0)
    const wanted = recorded.subarray(1)
    while (heard.length < wanted.length) {
      const { payload } = await this.#next("data")
      heard = Buffer.concat([heard, payload.subarray(1)])
    }
    expect(heard.subarray(0, wanted.length)).toEqual(wanted)
    this.#data.set(stream, heard.subarray(wanted.length))
  }

  /** Credit can come at any time. */
  async #next(type: FrameType): Promise<HostFrame> {
    let frame = await this.frame()
    while (frame.type === "window") frame = await this.frame()
    expect<FrameType>(frame.type).toBe(type)
    return frame
  }
}

function withoutMoment(json: unknown): object {
  const object = json as Record<string, unknown>
  return Object.fromEntries(Object.entries(object).filter(([key]) => !momentary.includes(key)))
}
