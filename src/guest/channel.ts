/**
 * The host's end of one guest's channel.
 *
 *   connect ── preamble sent, frames may follow ── guest's preamble: ready ── frames ── closed
 *
 * Owns the socket, its streams and their ids. Knows nothing about sandboxes and does not reconnect. The guest may
 * be hostile: whatever it sends costs only its own connection and bounded memory. When the channel is lost, every
 * pending operation fails with `unavailable`; unobserved promises do not cause unhandled rejections.
 */

import { AppError } from "@bhatti/contract/errors"
import {
  Decoder,
  encodeClose,
  encodeFrame,
  encodeHostPreamble,
  type Frame,
  nonceBytes,
  parseDataAt,
  WireError,
  wireLimits,
} from "./frame.ts"
import { encodeJson, parseResult, type Reading, type Result } from "./message.ts"
import { quiet, type Stream, type StreamLink } from "./operation.ts"
import { Outbox } from "./outbox.ts"
import { type Direction, type OpenShared, type Region, SharedMemory } from "./shared-memory.ts"

/** A guest that already runs gets this long to answer before a partial frame is ended with zeros. */
const resyncAfterMs = 1000
/** Limit on unrequested bytes before the guest is disconnected: more than a lost connection leaves in the kernel. */
const wasteBytesMax = 64 * 1024 * 1024
/** The first generation with shared memory. A guest without it speaks an earlier one. */
const sharingGeneration = 2

export class GuestChannel {
  readonly #outbox: Outbox
  readonly #decoder: Decoder
  readonly #streams = new Map<number, Stream>()
  /** Streams that do not count as use of the sandbox. */
  readonly #glances = new Set<number>()
  readonly #shared = new SharedMemory(() => this.#nonce)
  #lastAtMs = performance.now()
  readonly #ready = Promise.withResolvers<{ generation: number }>()
  readonly #closed = Promise.withResolvers<{ reason: string }>()
  #socket: Bun.Socket | undefined
  #lost: AppError | undefined
  #isReady = false
  #generation: number | undefined
  #nonce = newNonce()
  #nextStream = 1
  #wasteBytes = 0

  constructor() {
    this.#outbox = new Outbox((bytes) => this.#socket?.write(bytes) ?? 0)
    quiet(this.#ready.promise)
    this.#decoder = new Decoder(this.#nonce)
    this.#outbox.push(encodeHostPreamble(this.#nonce))
  }

  /** Handlers for the socket that becomes this guest's channel. */
  socketListeners(): Bun.SocketHandler<undefined> {
    const leave = () => this.#end("the guest's machine closed the channel")
    return {
      open: (socket) => {
        this.#socket = socket
        this.#outbox.flush()
      },
      data: (_, bytes) => this.#receive(bytes),
      drain: () => this.#outbox.flush(),
      end: leave,
      close: leave,
      error: (_, error) => this.#end(error.message),
    }
  }

  /** True once the guest has answered this connection's preamble. */
  get ready(): Promise<{ generation: number }> {
    return this.#ready.promise
  }

  /** The generation that both sides speak, once the guest has answered. */
  protected get generation(): number | undefined {
    return this.#generation
  }

  /**
   * Number of open streams that count as use, and when the last one began or ended, on the clock of
   * `performance.now()`.
   */
  get activity(): { openStreams: number; lastAtMs: number } {
    return { openStreams: this.#streams.size - this.#glances.size, lastAtMs: this.#lastAtMs }
  }

  /** Resolves when the channel is lost, for whatever reason. Never rejects. */
  get closed(): Promise<{ reason: string }> {
    return this.#closed.promise
  }

  /**
   * Waits for the guest's preamble. With `resync` the guest already runs, and its last host may have died in the
   * middle of a frame; if there is no answer, the partial frame is ended, and every request made on this connection
   * so far ends with it.
   */
  waitReady(options: { deadlineMs: number; resync?: boolean }): Promise<{ generation: number }> {
    const timer = options.resync ? setTimeout(() => this.#resync(), resyncAfterMs) : undefined
    const ready = inTime(this.#ready.promise, options.deadlineMs, "the guest did not answer")
    return quiet(ready.finally(() => clearTimeout(timer)))
  }

  /** Uses memory that the guest's machine shares with this host for file transfers, as far as there is room. */
  share(open: OpenShared): void {
    this.#shared.use(open)
  }

  close(): void {
    this.#end("this host closed it")
  }

  protected begin<S extends Stream>(request: object, make: (id: number, link: StreamLink) => S): S {
    const id = this.#nextStream++
    const stream = make(id, this.#linkOf(id))
    this.#open(id, stream, request)
    return stream
  }

  /** Assigns the guest a region of the shared memory. */
  protected beginReading<S extends Stream>(
    request: (shared: number | undefined) => object,
    make: (id: number, link: StreamLink) => S,
  ): S {
    const id = this.#nextStream++
    const region = this.#claim(id, "from guest")
    const stream = make(id, { ...this.#linkOf(id), region })
    this.#open(id, stream, request(region?.base))
    return stream
  }

  #linkOf(id: number): StreamLink {
    return {
      send: (bytes) => this.#send(bytes),
      room: () => this.#outbox.room(),
      leave: () => this.#streams.delete(id),
    }
  }

  protected sharing(id: number, link: StreamLink): StreamLink {
    return { ...link, claim: () => this.#claim(id, "to guest") }
  }

  #claim(id: number, direction: Direction): Region | undefined {
    return (this.#generation ?? 0) >= sharingGeneration ? this.#shared.claim(id, direction) : undefined
  }

  protected request<Answer>(
    request: { op: string },
    { parse, onMessage }: Reading<Answer>,
    options: { deadlineMs: number; isGlance?: boolean | undefined },
  ): Promise<Answer> {
    const id = this.#nextStream++
    if (options.isGlance) this.#glances.add(id)
    const answer = Promise.withResolvers<Answer>()
    const refuse = () => {
      throw new WireError("an operation without a stream got a frame of one")
    }
    this.#open(
      id,
      {
        onData: refuse,
        onDataAt: refuse,
        onWindow: refuse,
        onMessage: onMessage ?? refuse,
        onEnd: () => undefined,
        onClose: (result: Result) => {
          if (result.kind === "error") answer.reject(result.error)
          else answer.resolve(parse(result.value))
        },
        onLost: answer.reject,
      },
      request,
    )
    const inTimeAnswer = inTime(answer.promise, options.deadlineMs, `the guest did not answer ${request.op}`)
    return quiet(
      inTimeAnswer.finally(() => {
        this.#glances.delete(id)
        // Only a request that timed out is still registered; a late answer to it is dropped.
        if (this.#streams.delete(id)) this.#send(encodeClose(id))
      }),
    )
  }

  /** Opens a stream that does not count as use of the sandbox. */
  protected openGlance(request: object, stream: Stream): void {
    const id = this.#nextStream++
    this.#glances.add(id)
    this.#open(id, stream, request)
  }

  #open(id: number, stream: Stream, request: object): void {
    const payload = encodeJson(request)
    const refusal = this.#lost ?? this.#refusal(payload)
    if (refusal) {
      // The request was never sent.
      this.#shared.guestClosed(id)
      stream.onLost(refusal)
      return
    }
    this.#streams.set(id, stream)
    if (!this.#glances.has(id)) this.#lastAtMs = performance.now()
    this.#send(encodeFrame({ type: "open", stream: id, payload }))
  }

  #refusal(payload: Uint8Array): AppError | undefined {
    if (payload.length > wireLimits.jsonBytesMax) {
      return new AppError(
        "invalid",
        `the request has ${payload.length} bytes, at most ${wireLimits.jsonBytesMax} are allowed`,
      )
    }
    if (this.#streams.size >= wireLimits.streamsMax) {
      return new AppError(
        "limit_exceeded",
        `${wireLimits.streamsMax} commands, transfers and connections are open in this sandbox already`,
      )
    }
    return undefined
  }

  #send(bytes: Uint8Array): void {
    this.#outbox.push(bytes)
    if (this.#outbox.isOverflowing) this.#end("the guest does not read")
  }

  #receive(bytes: Uint8Array): void {
    if (this.#lost) return
    const droppedBefore = this.#decoder.droppedBytes
    try {
      for (const decoded of this.#decoder.decode(bytes)) {
        if (decoded.kind === "preamble") {
          this.#isReady = true
          this.#generation = decoded.generation
          this.#ready.resolve({ generation: decoded.generation })
        } else {
          this.#handle(decoded.frame)
        }
      }
      this.#countWaste(this.#decoder.droppedBytes - droppedBefore)
    } catch (error) {
      this.#end(error instanceof Error ? error.message : String(error))
    }
  }

  #handle(frame: Frame): void {
    if (frame.type === "open") throw new WireError("the guest tried to open a stream")
    const stream = this.#streams.get(frame.stream)
    if (!stream) {
      if (frame.type === "close") this.#shared.guestClosed(frame.stream)
      this.#countWaste(wireLimits.headerBytes + frame.payload.length)
      return
    }
    const { payload } = frame
    switch (frame.type) {
      case "data":
        return stream.onData(payload[0] ?? 0, payload.subarray(1))
      case "data_at": {
        const { channel, extent } = parseDataAt(payload)
        return stream.onDataAt(channel, extent)
      }
      case "window":
        return this.#handleWindow(stream, Buffer.from(payload).readUInt32BE())
      case "message":
        if (!stream.onMessage(payload)) this.#countWaste(wireLimits.headerBytes + payload.length)
        return
      case "close":
        // Removed only if its answer was valid: otherwise it fails with the connection.
        stream.onClose(parseResult(payload))
        this.#streams.delete(frame.stream)
        this.#shared.guestClosed(frame.stream)
        if (!this.#glances.delete(frame.stream)) this.#lastAtMs = performance.now()
        return
      case "end":
        this.#countWaste(wireLimits.headerBytes)
        return stream.onEnd(payload[0] ?? 0)
    }
  }

  #handleWindow(stream: Stream, count: number): void {
    if (count === 0) this.#countWaste(wireLimits.headerBytes)
    stream.onWindow(count)
  }

  /** Counts useless bytes. A guest that floods its channel with them would keep the whole host busy. */
  #countWaste(count: number): void {
    this.#wasteBytes += count
    if (this.#wasteBytes > wasteBytesMax) throw new WireError("the guest floods the channel")
  }

  #resync(): void {
    if (this.#isReady || this.#lost) return
    this.#loseStreams(new AppError("unavailable", "the connection to the guest was restarted"))
    this.#nonce = newNonce()
    this.#decoder.expect(this.#nonce)
    this.#send(new Uint8Array(wireLimits.frameBytesMax))
    this.#send(encodeHostPreamble(this.#nonce))
  }

  #end(reason: string): void {
    if (this.#lost) return
    const lost = new AppError("unavailable", `the channel to the guest is lost: ${reason}`, {
      reason: "channel_lost",
    })
    this.#lost = lost
    this.#outbox.close()
    this.#socket?.terminate()
    this.#ready.reject(lost)
    this.#loseStreams(lost)
    this.#shared.close()
    this.#closed.resolve({ reason })
  }

  #loseStreams(error: AppError): void {
    const streams = [...this.#streams.values()]
    this.#streams.clear()
    this.#glances.clear()
    for (const stream of streams) stream.onLost(error)
  }
}

function newNonce(): Uint8Array {
  return crypto.getRandomValues(new Uint8Array(nonceBytes))
}

/** Returns the promise's outcome, or fails with `unavailable` at the deadline. */
async function inTime<T>(promise: Promise<T>, deadlineMs: number, message: string): Promise<T> {
  const late = Promise.withResolvers<never>()
  const timer = setTimeout(
    () => late.reject(new AppError("unavailable", `${message} within ${deadlineMs} ms`)),
    deadlineMs,
  )
  try {
    return await Promise.race([promise, late.promise])
  } finally {
    clearTimeout(timer)
  }
}
