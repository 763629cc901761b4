/**
 * An operation: bytes in either direction, a first message from the guest, and a result.
 *
 *   open ── first message ── bytes, messages ── result
 *     │                                           │
 *     └── the host closes, the channel is lost, the guest takes too long ──┘
 *
 * The three functions passed to it define what the operation means. Callers may ignore any of its promises.
 */

import { AppError } from "@bhatti/contract/errors"
import { Input, Output, type StreamWriter, type WithinDeadline } from "./flow.ts"
import { channels, type Extent, encodeClose, encodeFrame, encodeWindow, WireError } from "./frame.ts"
import { encodeJson, type Result } from "./message.ts"
import type { Region } from "./shared-memory.ts"

/** Handles the frames that the guest sends on a stream. Throws `WireError` if they break a rule. */
export type Stream = {
  onData(channel: number, bytes: Uint8Array): void
  /** Data in the shared memory. */
  onDataAt(channel: number, extent: Extent): void
  onWindow(count: number): void
  /** Returns false if the message was useless. */
  onMessage(payload: Uint8Array): boolean
  onEnd(channel: number): void
  onClose(result: Result): void
  /** The stream ends without the guest's answer. */
  onLost(error: AppError): void
}

export type Meaning<First, Answer, Chunk> = {
  /** Reads the guest's first message. Returns undefined for any other message. */
  parseFirst(payload: Uint8Array): First | undefined
  parseAnswer(value: unknown): Answer
  toChunk(channel: number, bytes: Uint8Array, about: AboutPiece): Chunk
  /** An error ends the output with that error: a failed download must not look like a short file. */
  outputFails?: boolean
  /** How long the first message may take. */
  firstDeadlineMs?: number
  /** How long the guest may make us wait for bytes, for room, or for the result of the input. */
  stallDeadlineMs?: number
}

/** `skipped` bytes of the channel are missing before these; `isExtra`: they are no output. */
export type AboutPiece = { skipped: number; isExtra?: true }

export type StreamLink = StreamWriter & {
  /** Unregisters the stream; a late answer from the guest is dropped. */
  leave(): void
  /** Claims a region of the shared memory for input to the guest. Returns undefined if none is free. */
  claim?(): Region | undefined
  /** The region for the guest's output. */
  region?: Region | undefined
}

export class Operation<First, Answer, Chunk = Uint8Array> implements Stream {
  readonly #id: number
  readonly #link: StreamLink
  readonly #meaning: Meaning<First, Answer, Chunk>
  readonly #first = Promise.withResolvers<First>()
  readonly #result = Promise.withResolvers<Answer>()
  readonly #input: Input
  readonly #output: Output<Chunk>
  #timers = new Set<ReturnType<typeof setTimeout>>()
  #isRunning = true
  #isBegun = false
  #isClosing = false

  constructor(id: number, link: StreamLink, meaning: Meaning<First, Answer, Chunk>) {
    this.#id = id
    this.#link = link
    this.#meaning = meaning
    quiet(this.#first.promise)
    quiet(this.#result.promise)
    const withinDeadline: WithinDeadline = (promise) => this.#withinTime(promise, meaning.stallDeadlineMs)
    this.#input = new Input({
      id,
      writer: { send: (bytes) => this.#send(bytes), room: () => link.room() },
      withinDeadline,
      claim: () => link.claim?.(),
    })
    this.#output = new Output({
      toChunk: meaning.toChunk,
      giveBack: (count) => this.#send(encodeWindow(id, count)),
      withinDeadline,
      region: link.region,
      onUnreadable: () => this.close(),
    })
    void quiet(
      this.#withinTime(
        this.#first.promise.then(() => undefined),
        meaning.firstDeadlineMs,
      ),
    )
  }

  get first(): Promise<First> {
    return this.#first.promise
  }

  get result(): Promise<Answer> {
    return this.#result.promise
  }

  get output(): AsyncIterable<Chunk> {
    return this.#output
  }

  write(bytes: Uint8Array): Promise<void> {
    return quiet(this.#input.write(bytes))
  }

  endInput(): void {
    void this.#input.finish().then(() =>
      this.#withinTime(
        this.#result.promise.then(
          () => undefined,
          () => undefined,
        ),
        this.#meaning.stallDeadlineMs,
      ),
    )
  }

  message(value: object): void {
    this.#send(encodeFrame({ type: "message", stream: this.#id, payload: encodeJson(value) }))
  }

  /** Asks the guest to end it; `result` settles when that is done. */
  close(): void {
    if (this.#isClosing) return
    this.#isClosing = true
    this.#output.giveUp(new AppError("unavailable", "it was given up"))
    this.#send(encodeClose(this.#id))
  }

  onData(channel: number, bytes: Uint8Array): void {
    if (channel !== channels.stdout && channel !== channels.stderr) {
      throw new WireError(`output on channel ${channel}`)
    }
    this.#output.put(channel, bytes)
  }

  onDataAt(channel: number, extent: Extent): void {
    this.#output.putAt(channel, extent)
  }

  onWindow(count: number): void {
    this.#input.addCredit(count)
  }

  onMessage(payload: Uint8Array): boolean {
    const first = this.#isBegun ? undefined : this.#meaning.parseFirst(payload)
    if (first === undefined) return false
    this.#isBegun = true
    this.#first.resolve(first)
    return true
  }

  onEnd(channel: number): void {
    if (channel === channels.stdout) this.#output.end()
  }

  onClose(result: Result): void {
    const answer = result.kind === "ok" ? { value: this.#meaning.parseAnswer(result.value) } : undefined
    const error = result.kind === "error" ? result.error : undefined
    this.#finish()
    this.#input.end()
    this.#output.end(this.#meaning.outputFails ? error : undefined)
    if (answer) {
      this.#result.resolve(answer.value)
      this.#first.reject(new AppError("internal", "the operation ended and never said that it began"))
    } else if (error) {
      this.#first.reject(error)
      this.#result.reject(error)
    }
  }

  onLost(error: AppError): void {
    this.#finish()
    this.#input.end(error)
    this.#output.end(error)
    this.#first.reject(error)
    this.#result.reject(error)
  }

  /** Adds text at this place of the output. */
  protected insert(channel: number, bytes: Uint8Array): void {
    this.#output.insert(channel, bytes)
  }

  /** Marks that bytes of the channel are missing before the next ones. */
  protected skip(channel: number, count: number): boolean {
    return this.#output.skip(channel, count)
  }

  #send(bytes: Uint8Array): void {
    if (this.#isRunning) this.#link.send(bytes)
  }

  #finish(): void {
    this.#isRunning = false
    for (const timer of this.#timers) clearTimeout(timer)
    this.#timers.clear()
  }

  async #withinTime(promise: Promise<void>, deadlineMs: number | undefined): Promise<void> {
    if (deadlineMs === undefined || !this.#isRunning) return promise
    const timer = setTimeout(() => this.#giveUp(deadlineMs), deadlineMs)
    this.#timers.add(timer)
    try {
      await promise
    } finally {
      clearTimeout(timer)
      this.#timers.delete(timer)
    }
  }

  #giveUp(deadlineMs: number): void {
    const error = new AppError("unavailable", `the guest left this host waiting for ${deadlineMs} ms`)
    this.#output.end(error)
    this.close()
    this.#link.leave()
    this.onLost(error)
  }
}

/** Marks the promise as handled; callers that care about a lost connection await `closed`. */
export function quiet<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => undefined)
  return promise
}
