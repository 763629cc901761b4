/**
 * A command in the guest, seen from the host: its output with back-pressure, its input within the window, its end.
 *
 * The guest may be hostile: it cannot make this side keep more than one window of output, nor more than a bounded
 * number of pieces of it. Nobody has to listen to `started` or `result`.
 */

import { AppError } from "../contract/errors.ts"
import {
  channels,
  encodeClose,
  encodeData,
  encodeEnd,
  encodeFrame,
  encodeWindow,
  WireError,
  wireLimits,
} from "./frame.ts"
import {
  type Exited,
  encodeJson,
  parseExited,
  parseStarted,
  type Result,
  requests,
  type TerminalSize,
} from "./message.ts"

export type OutputChunk = { channel: "stdout" | "stderr"; bytes: Uint8Array }

export type GuestProcess = {
  /** Resolves when the command runs. */
  readonly started: Promise<{ pid: number }>
  /** What the command writes. The guest may send more only as chunks are taken; to stop reading discards the rest. */
  readonly output: AsyncIterable<OutputChunk>
  /** The command's end; its output may still be waiting to be read. Rejects with an `AppError`. */
  readonly result: Promise<Exited>
  /** Resolves when the bytes are on their way. Input of a command that has ended is dropped. */
  write(bytes: Uint8Array): Promise<void>
  endInput(): void
  signal(name: string): void
  resize(size: TerminalSize): void
  /** Kills the command and everything it started; `result` tells when that is done. */
  kill(): void
}

/** What the connection does for a stream. */
export type StreamWriter = {
  send(bytes: Uint8Array): void
  /** Waits until there is room for one more data frame. */
  room(): Promise<void>
}

/** What a stream does with the frames that the guest sends on it. Throws `WireError` when they break a rule. */
export type Stream = {
  onData(channel: number, bytes: Uint8Array): void
  onWindow(count: number): void
  /** False: the message was of no use. */
  onMessage(payload: Uint8Array): boolean
  onClose(result: Result): void
  /** The stream ends without the guest's answer. */
  onLost(error: AppError): void
}

/** Taken output collects to this before the guest hears of it. */
const owedBytesMin = wireLimits.windowBytes / 4
/** Beyond this many waiting pieces, small ones are joined even if stdout and stderr change places by that. */
const piecesMax = 1024

export class Process implements GuestProcess, Stream {
  readonly #id: number
  readonly #writer: StreamWriter
  readonly #started = Promise.withResolvers<{ pid: number }>()
  readonly #result = Promise.withResolvers<Exited>()
  readonly #output: Output
  #state: { kind: "running" } | { kind: "ended" } | { kind: "lost"; error: AppError } = { kind: "running" }
  #isStarted = false
  #isKilled = false
  #credit: number = wireLimits.windowBytes
  #creditChanged = Promise.withResolvers<void>()
  #input: Promise<void> = Promise.resolve()

  constructor(id: number, writer: StreamWriter) {
    this.#id = id
    this.#writer = writer
    this.#output = new Output((count) => this.#send(encodeWindow(id, count)))
    quiet(this.#started.promise)
    quiet(this.#result.promise)
  }

  get started(): Promise<{ pid: number }> {
    return this.#started.promise
  }

  get result(): Promise<Exited> {
    return this.#result.promise
  }

  get output(): AsyncIterable<OutputChunk> {
    return this.#output
  }

  write(bytes: Uint8Array): Promise<void> {
    const written = this.#input.then(() => this.#writeAll(bytes))
    this.#input = written.catch(() => undefined)
    return quiet(written)
  }

  endInput(): void {
    this.#input = this.#input.then(() => this.#send(encodeEnd(this.#id, channels.stdin)))
  }

  signal(name: string): void {
    this.#sendMessage(requests.signal(name))
  }

  resize(size: TerminalSize): void {
    this.#sendMessage(requests.resize(size))
  }

  kill(): void {
    if (this.#isKilled) return
    this.#isKilled = true
    this.#send(encodeClose(this.#id))
  }

  onData(channel: number, bytes: Uint8Array): void {
    if (channel !== channels.stdout && channel !== channels.stderr) {
      throw new WireError(`output on channel ${channel}`)
    }
    this.#output.put(channel === channels.stdout ? "stdout" : "stderr", bytes)
  }

  onWindow(count: number): void {
    if (this.#credit + count > wireLimits.windowBytes) throw new WireError("more is given back than was sent")
    this.#credit += count
    this.#tellCreditChanged()
  }

  onMessage(payload: Uint8Array): boolean {
    const started = this.#isStarted ? undefined : parseStarted(payload)
    if (!started) return false
    this.#isStarted = true
    this.#started.resolve(started)
    return true
  }

  onClose(result: Result): void {
    const exited = result.kind === "ok" ? parseExited(result.value) : undefined
    this.#state = { kind: "ended" }
    this.#tellCreditChanged()
    this.#output.end()
    if (exited) {
      this.#result.resolve(exited)
      this.#started.reject(new AppError("internal", "the command ended and never said that it ran"))
    } else if (result.kind === "error") {
      this.#started.reject(result.error)
      this.#result.reject(result.error)
    }
  }

  onLost(error: AppError): void {
    this.#state = { kind: "lost", error }
    this.#tellCreditChanged()
    this.#output.end(error)
    this.#started.reject(error)
    this.#result.reject(error)
  }

  async #writeAll(bytes: Uint8Array): Promise<void> {
    for (let rest = bytes; rest.length > 0; ) {
      while (this.#credit === 0 && this.#state.kind === "running") await this.#creditChanged.promise
      await this.#writer.room()
      if (this.#state.kind === "ended") return
      if (this.#state.kind === "lost") throw this.#state.error
      const count = Math.min(rest.length, this.#credit, wireLimits.dataBytesMax)
      this.#credit -= count
      this.#send(encodeData(this.#id, channels.stdin, rest.subarray(0, count)))
      rest = rest.subarray(count)
    }
  }

  #sendMessage(message: object): void {
    this.#send(encodeFrame({ type: "message", stream: this.#id, payload: encodeJson(message) }))
  }

  #send(bytes: Uint8Array): void {
    if (this.#state.kind === "running") this.#writer.send(bytes)
  }

  #tellCreditChanged(): void {
    this.#creditChanged.resolve()
    this.#creditChanged = Promise.withResolvers<void>()
  }
}

/** A piece of output; its buffer may have room for more. */
type Piece = { channel: OutputChunk["channel"]; buffer: Uint8Array; length: number }

/** At most one window of output that waits to be taken. */
class Output implements AsyncIterable<OutputChunk> {
  readonly #giveBack: (count: number) => void
  #pieces: Piece[] = []
  #allowance: number = wireLimits.windowBytes
  #owed = 0
  #end: { error: AppError | undefined } | undefined
  #isDiscarding = false
  #changed = Promise.withResolvers<void>()

  constructor(giveBack: (count: number) => void) {
    this.#giveBack = giveBack
  }

  put(channel: OutputChunk["channel"], bytes: Uint8Array): void {
    if (bytes.length > this.#allowance) throw new WireError("more output than the window allows")
    this.#allowance -= bytes.length
    if (this.#isDiscarding) {
      this.#taken(bytes.length)
      return
    }
    if (!this.#join(channel, bytes)) this.#pieces.push({ channel, buffer: bytes, length: bytes.length })
    this.#tellChanged()
  }

  end(error?: AppError): void {
    this.#end = { error }
    this.#tellChanged()
  }

  [Symbol.asyncIterator](): AsyncIterator<OutputChunk, undefined> {
    return {
      next: async () => {
        for (;;) {
          const piece = this.#pieces.shift()
          if (piece) {
            this.#taken(piece.length)
            const bytes = piece.buffer.subarray(0, piece.length)
            return { done: false, value: { channel: piece.channel, bytes } }
          }
          if (this.#end?.error && !this.#isDiscarding) throw this.#end.error
          if (this.#end || this.#isDiscarding) return { done: true, value: undefined }
          await this.#changed.promise
        }
      },
      return: async () => {
        this.#discard()
        return { done: true, value: undefined }
      },
    }
  }

  #discard(): void {
    this.#isDiscarding = true
    const waiting = this.#pieces.reduce((sum, piece) => sum + piece.length, 0)
    this.#pieces = []
    this.#taken(waiting)
    this.#tellChanged()
  }

  #taken(count: number): void {
    this.#owed += count
    if (this.#owed < owedBytesMin || this.#end) return
    this.#allowance += this.#owed
    this.#giveBack(this.#owed)
    this.#owed = 0
  }

  /** Adds small pieces to the one before them, so that a flood of single bytes does not cost an object for each. */
  #join(channel: OutputChunk["channel"], bytes: Uint8Array): boolean {
    const candidates = this.#pieces.length < piecesMax ? [this.#pieces.at(-1)] : this.#pieces.slice(-2)
    for (const piece of candidates) {
      if (piece?.channel !== channel || piece.length + bytes.length > wireLimits.dataBytesMax) continue
      if (piece.length + bytes.length > piece.buffer.length) {
        const larger = new Uint8Array(Math.min(wireLimits.dataBytesMax, 2 * (piece.length + bytes.length)))
        larger.set(piece.buffer.subarray(0, piece.length))
        piece.buffer = larger
      }
      piece.buffer.set(bytes, piece.length)
      piece.length += bytes.length
      return true
    }
    return false
  }

  #tellChanged(): void {
    this.#changed.resolve()
    this.#changed = Promise.withResolvers<void>()
  }
}

/** A rejection that nobody listens to is nobody's loss here: the connection's end is told by `closed`. */
export function quiet<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => undefined)
  return promise
}
