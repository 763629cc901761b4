/**
 * Bytes on one stream, within the windows: `Input` goes to the guest, `Output` comes from it.
 *
 * The guest may be hostile: it cannot make this side keep more than one window of output, nor more than a bounded
 * number of pieces of it.
 */

import type { AppError } from "../contract/errors.ts"
import { channels, encodeData, encodeEnd, WireError, wireLimits } from "./frame.ts"

/** Taken output collects to this before the guest hears of it. */
const owedBytesMin = wireLimits.windowBytes / 4
/** Beyond this many waiting pieces, small ones are joined even if stdout and stderr change places by that. */
const piecesMax = 1024

/** Waits for the promise; when it takes longer than the guest may, the whole stream is given up. */
export type Patience = (promise: Promise<void>) => Promise<void>

/** What the connection does for a stream. */
export type StreamWriter = {
  send(bytes: Uint8Array): void
  /** Waits until there is room for one more data frame. */
  room(): Promise<void>
}

/** Bytes for the guest, sent in order and only as far as it has room. */
export class Input {
  readonly #id: number
  readonly #writer: StreamWriter
  readonly #patience: Patience
  #credit: number = wireLimits.windowBytes
  #changed = Promise.withResolvers<void>()
  #last: Promise<void> = Promise.resolve()
  #end: { error: AppError | undefined } | undefined

  constructor(id: number, writer: StreamWriter, patience: Patience) {
    this.#id = id
    this.#writer = writer
    this.#patience = patience
  }

  /** Resolves when the bytes are on their way. What comes after the stream's end is dropped. */
  write(bytes: Uint8Array): Promise<void> {
    const written = this.#last.then(() => this.#writeAll(bytes))
    this.#last = written.catch(() => undefined)
    return written
  }

  /** Says that no more comes, behind everything that was written. */
  finish(): Promise<void> {
    this.#last = this.#last.then(() => {
      if (!this.#end) this.#writer.send(encodeEnd(this.#id, channels.stdin))
    })
    return this.#last
  }

  addCredit(count: number): void {
    if (this.#credit + count > wireLimits.windowBytes) throw new WireError("more is given back than was sent")
    this.#credit += count
    this.#tellChanged()
  }

  end(error?: AppError): void {
    this.#end = { error }
    this.#tellChanged()
  }

  async #writeAll(bytes: Uint8Array): Promise<void> {
    for (let rest = bytes; rest.length > 0; ) {
      while (this.#credit === 0 && !this.#end) await this.#patience(this.#changed.promise)
      await this.#patience(this.#writer.room())
      if (this.#end?.error) throw this.#end.error
      if (this.#end) return
      const count = Math.min(rest.length, this.#credit, wireLimits.dataBytesMax)
      this.#credit -= count
      this.#writer.send(encodeData(this.#id, channels.stdin, rest.subarray(0, count)))
      rest = rest.subarray(count)
    }
  }

  #tellChanged(): void {
    this.#changed.resolve()
    this.#changed = Promise.withResolvers<void>()
  }
}

/** A piece of output; its buffer may have room for more. */
type Piece = { channel: number; buffer: Uint8Array; length: number }

/** At most one window of output that waits to be taken. */
export class Output<Chunk> implements AsyncIterable<Chunk> {
  readonly #toChunk: (channel: number, bytes: Uint8Array) => Chunk
  readonly #giveBack: (count: number) => void
  readonly #patience: Patience
  #pieces: Piece[] = []
  #allowance: number = wireLimits.windowBytes
  #owed = 0
  #end: { error: AppError | undefined } | undefined
  #isDiscarding = false
  #changed = Promise.withResolvers<void>()

  constructor(options: {
    toChunk: (channel: number, bytes: Uint8Array) => Chunk
    giveBack: (count: number) => void
    patience: Patience
  }) {
    this.#toChunk = options.toChunk
    this.#giveBack = options.giveBack
    this.#patience = options.patience
  }

  put(channel: number, bytes: Uint8Array): void {
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
    this.#end ??= { error }
    this.#tellChanged()
  }

  /** Drops what waits and what comes. */
  discard(): void {
    if (this.#isDiscarding) return
    this.#isDiscarding = true
    const waiting = this.#pieces.reduce((sum, piece) => sum + piece.length, 0)
    this.#pieces = []
    this.#taken(waiting)
    this.#tellChanged()
  }

  [Symbol.asyncIterator](): AsyncIterator<Chunk, undefined> {
    return {
      next: async () => {
        for (;;) {
          const piece = this.#pieces.shift()
          if (piece) {
            this.#taken(piece.length)
            return {
              done: false,
              value: this.#toChunk(piece.channel, piece.buffer.subarray(0, piece.length)),
            }
          }
          if (this.#end?.error && !this.#isDiscarding) throw this.#end.error
          if (this.#end || this.#isDiscarding) return { done: true, value: undefined }
          await this.#patience(this.#changed.promise)
        }
      },
      return: async () => {
        this.discard()
        return { done: true, value: undefined }
      },
    }
  }

  #taken(count: number): void {
    this.#owed += count
    if (this.#owed < owedBytesMin || this.#end) return
    this.#allowance += this.#owed
    this.#giveBack(this.#owed)
    this.#owed = 0
  }

  /** Adds small pieces to the one before them, so that a flood of single bytes does not cost an object for each. */
  #join(channel: number, bytes: Uint8Array): boolean {
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
