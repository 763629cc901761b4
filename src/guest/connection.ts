/**
 * The host's end of one guest's channel.
 *
 *   connect ── preamble sent, frames may follow ── guest's preamble: ready ── frames ── closed
 *
 * Owns the socket, the streams on it and their ids. Does not know what a sandbox is, nor opens a lost channel again.
 * The guest may be hostile: whatever it sends costs its own connection and bounded memory. When the channel is gone,
 * everything that waits for it fails with `unavailable`, and nothing fails that nobody listens to.
 */

import { AppError } from "../contract/errors.ts"
import {
  Decoder,
  encodeClose,
  encodeFrame,
  encodeHostPreamble,
  type Frame,
  nonceBytes,
  WireError,
  wireLimits,
} from "./frame.ts"
import {
  type Command,
  encodeJson,
  type Identity,
  type Pong,
  parsePersonalised,
  parsePong,
  parseResult,
  type Result,
  requests,
} from "./message.ts"
import { Outbox } from "./outbox.ts"
import { type GuestProcess, Process, quiet, type Stream } from "./process.ts"

/** A guest that is asked again while it runs gets this long before its half frame is ended with zeros. */
const resyncAfterMs = 1000
/** What a guest may send that nobody asked for before it is cut off: more than a lost connection leaves in the kernel. */
const wasteBytesMax = 64 * 1024 * 1024
const entropyBytes = 64

/** Connects to the guest's socket and sends the preamble at once. Requests may follow before the guest answers. */
export async function openGuest(options: { socketPath: string; signal?: AbortSignal }): Promise<Guest> {
  const guest = new Guest()
  try {
    options.signal?.throwIfAborted()
    await Bun.connect({ unix: options.socketPath, socket: guest.socketListeners() })
  } catch (cause) {
    throw new AppError("unavailable", "cannot connect to the guest's channel", { cause })
  }
  const abort = () => guest.close()
  options.signal?.addEventListener("abort", abort, { once: true })
  void guest.closed.then(() => options.signal?.removeEventListener("abort", abort))
  if (options.signal?.aborted) guest.close()
  return guest
}

export class Guest {
  readonly #outbox: Outbox
  readonly #decoder: Decoder
  readonly #streams = new Map<number, Stream>()
  readonly #ready = Promise.withResolvers<{ generation: number }>()
  readonly #closed = Promise.withResolvers<{ reason: string }>()
  #socket: Bun.Socket | undefined
  #lost: AppError | undefined
  #isReady = false
  #nextStream = 1
  #wasteBytes = 0

  constructor() {
    this.#outbox = new Outbox((bytes) => this.#socket?.write(bytes) ?? 0)
    quiet(this.#ready.promise)
    const nonce = newNonce()
    this.#decoder = new Decoder(nonce)
    this.#outbox.push(encodeHostPreamble(nonce))
  }

  /** What the socket that is to be this guest's channel has to call. */
  socketListeners(): Bun.SocketHandler<undefined> {
    const leave = () => this.#end("the guest's machine closed it")
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

  /** The guest has answered this connection's preamble. */
  get ready(): Promise<{ generation: number }> {
    return this.#ready.promise
  }

  /** The channel is gone, for whatever reason. Never rejects. */
  get closed(): Promise<{ reason: string }> {
    return this.#closed.promise
  }

  /**
   * Waits for the guest's preamble. `resync`: the guest runs already, and its last host may have died in the middle
   * of a frame; without an answer the half frame is ended, and with it whatever was asked on this connection so far.
   */
  waitReady(options: { deadlineMs: number; resync?: boolean }): Promise<{ generation: number }> {
    const timer = options.resync ? setTimeout(() => this.#resync(), resyncAfterMs) : undefined
    const ready = inTime(this.#ready.promise, options.deadlineMs, "the guest did not answer")
    return quiet(ready.finally(() => clearTimeout(timer)))
  }

  ping(options: { deadlineMs: number }): Promise<Pong> {
    return this.#ask(requests.ping(), parsePong, options)
  }

  /** Gives the guest its identity, fresh randomness and the time. Without success the guest must not be used. */
  personalise(identity: Identity, options: { deadlineMs: number }): Promise<{ bootId: string }> {
    const entropy = crypto.getRandomValues(new Uint8Array(entropyBytes))
    const unixNs = BigInt(Date.now()) * 1_000_000n
    return this.#ask(requests.personalise(identity, { entropy, unixNs }), parsePersonalised, options)
  }

  /** Brings the guest to a frame boundary with its filesystems written out. Nothing may be asked after it. */
  quiesce(options: { deadlineMs: number }): Promise<void> {
    return this.#ask(requests.quiesce(), () => undefined, options)
  }

  /** Resolves when the guest has begun to switch itself off. */
  shutdown(options: { deadlineMs: number }): Promise<void> {
    return this.#ask(requests.shutdown(), () => undefined, options)
  }

  exec(command: Command): GuestProcess {
    const id = this.#nextStream++
    const process = new Process(id, {
      send: (bytes) => this.#send(bytes),
      room: () => this.#outbox.room(),
    })
    this.#open(id, process, requests.exec(command))
    return process
  }

  close(): void {
    this.#end("this host closed it")
  }

  #ask<Answer>(
    request: { op: string },
    parse: (value: unknown) => Answer,
    options: { deadlineMs: number },
  ): Promise<Answer> {
    const id = this.#nextStream++
    const answer = Promise.withResolvers<Answer>()
    const refuse = () => {
      throw new WireError("an operation without a stream got a frame of one")
    }
    this.#open(
      id,
      {
        onData: refuse,
        onWindow: refuse,
        onMessage: refuse,
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
        // Only a late one is still there; its answer would not find anybody.
        if (this.#streams.delete(id)) this.#send(encodeClose(id))
      }),
    )
  }

  #open(id: number, stream: Stream, request: object): void {
    const payload = encodeJson(request)
    const refusal = this.#lost ?? this.#refusal(payload)
    if (refusal) {
      stream.onLost(refusal)
      return
    }
    this.#streams.set(id, stream)
    this.#send(encodeFrame({ type: "open", stream: id, payload }))
  }

  #refusal(payload: Uint8Array): AppError | undefined {
    if (payload.length > wireLimits.jsonBytesMax) {
      return new AppError(
        "invalid",
        `the request has ${payload.length} bytes, at most ${wireLimits.jsonBytesMax} fit`,
      )
    }
    if (this.#streams.size >= wireLimits.streamsMax) {
      return new AppError("limit_exceeded", `${wireLimits.streamsMax} commands run in this sandbox already`)
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
      this.#countWaste(wireLimits.headerBytes + frame.payload.length)
      return
    }
    const { payload } = frame
    switch (frame.type) {
      case "data":
        return stream.onData(payload[0] ?? 0, payload.subarray(1))
      case "window":
        return this.#handleWindow(stream, Buffer.from(payload).readUInt32BE())
      case "message":
        if (!stream.onMessage(payload)) this.#countWaste(wireLimits.headerBytes + payload.length)
        return
      case "close":
        // Taken off only when its answer could be read: otherwise it fails with the connection.
        stream.onClose(parseResult(payload))
        this.#streams.delete(frame.stream)
        return
      case "end":
        this.#countWaste(wireLimits.headerBytes)
        return
    }
  }

  #handleWindow(stream: Stream, count: number): void {
    if (count === 0) this.#countWaste(wireLimits.headerBytes)
    stream.onWindow(count)
  }

  /** Counts what carries nothing of use. A guest that floods its channel with it would keep the whole host busy. */
  #countWaste(count: number): void {
    this.#wasteBytes += count
    if (this.#wasteBytes > wasteBytesMax) throw new WireError("the guest floods the channel")
  }

  #resync(): void {
    if (this.#isReady || this.#lost) return
    this.#loseStreams(new AppError("unavailable", "the connection to the guest was begun again"))
    const nonce = newNonce()
    this.#decoder.expect(nonce)
    this.#send(new Uint8Array(wireLimits.frameBytesMax))
    this.#send(encodeHostPreamble(nonce))
  }

  #end(reason: string): void {
    if (this.#lost) return
    const lost = new AppError("unavailable", `the channel to the guest is lost: ${reason}`)
    this.#lost = lost
    this.#outbox.close()
    this.#socket?.terminate()
    this.#ready.reject(lost)
    this.#loseStreams(lost)
    this.#closed.resolve({ reason })
  }

  #loseStreams(error: AppError): void {
    const streams = [...this.#streams.values()]
    this.#streams.clear()
    for (const stream of streams) stream.onLost(error)
  }
}

function newNonce(): Uint8Array {
  return crypto.getRandomValues(new Uint8Array(nonceBytes))
}

/** The promise's outcome, or `unavailable` when the deadline passes first. */
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
