/**
 * Bytes on one stream, within the windows: `Input` goes to the guest, `Output` comes from it.
 *
 * The guest may be hostile: it cannot make this side buffer more than one window of output, nor more than a bounded
 * number of pieces.
 */

import type { AppError } from "@bhatti/contract/errors"
import { channels, type Extent, encodeData, encodeDataAt, encodeEnd, WireError, wireLimits } from "./frame.ts"
import type { Region } from "./shared-memory.ts"

/** Taken output collects to this before the guest gets credit. */
const owedBytesMin = wireLimits.windowBytes / 4
/** Beyond this many waiting pieces, small ones are joined even if that reorders stdout and stderr. */
const piecesMax = 1024
/** Smaller pieces are faster in frames. */
const sharedWriteBytesMin = 16_384

/** Waits for the promise; on a timeout the whole stream is cancelled. */
export type WithinDeadline = (promise: Promise<void>) => Promise<void>

/** The connection as a stream sees it. */
export type StreamWriter = {
  send(bytes: Uint8Array): void
  /** Waits until there is room for one more data frame. */
  room(): Promise<void>
}

/** Bytes for the guest, sent in order and only as far as it has room. */
export class Input {
  readonly #id: number
  readonly #writer: StreamWriter
  readonly #withinDeadline: WithinDeadline
  readonly #claim: () => Region | undefined
  #region: Region | undefined
  #credit: number = wireLimits.windowBytes
  #changed = Promise.withResolvers<void>()
  #last: Promise<void> = Promise.resolve()
  #end: { error: AppError | undefined } | undefined

  /** `claim` requests a region of the shared memory when the input is large. */
  constructor(options: {
    id: number
    writer: StreamWriter
    withinDeadline: WithinDeadline
    claim: () => Region | undefined
  }) {
    this.#id = options.id
    this.#writer = options.writer
    this.#withinDeadline = options.withinDeadline
    this.#claim = options.claim
  }

  /** Resolves when the bytes have been sent. Bytes after the stream's end are dropped. */
  write(bytes: Uint8Array): Promise<void> {
    const written = this.#last.then(() => this.#writeAll(bytes))
    this.#last = written.catch(() => undefined)
    return written
  }

  /** Ends the input after everything that was written. */
  finish(): Promise<void> {
    this.#last = this.#last.then(() => {
      if (!this.#end) this.#writer.send(encodeEnd(this.#id, channels.stdin))
    })
    return this.#last
  }

  addCredit(count: number): void {
    if (this.#credit + count > wireLimits.windowBytes)
      throw new WireError("the guest acknowledged more than was sent")
    this.#credit += count
    this.#tellChanged()
  }

  end(error?: AppError): void {
    this.#end = { error }
    this.#tellChanged()
  }

  async #writeAll(bytes: Uint8Array): Promise<void> {
    // Once it has a region, all further bytes go through it: frames and shared memory are not ordered with each
    // other.
    if (bytes.length >= sharedWriteBytesMin && !this.#end) this.#region ??= this.#claim()
    for (let rest = bytes; rest.length > 0; ) {
      while (this.#credit === 0 && !this.#end) await this.#withinDeadline(this.#changed.promise)
      await this.#withinDeadline(this.#writer.room())
      if (this.#end?.error) throw this.#end.error
      if (this.#end) return
      const count = this.#send(rest.subarray(0, this.#credit))
      this.#credit -= count
      rest = rest.subarray(count)
    }
  }

  /** Sends the beginning of the bytes; returns how many. */
  #send(bytes: Uint8Array): number {
    if (this.#region) {
      const extent = this.#region.write(bytes)
      this.#writer.send(encodeDataAt(this.#id, channels.stdin, extent))
      return extent.length
    }
    const piece = bytes.subarray(0, wireLimits.dataBytesMax)
    this.#writer.send(encodeData(this.#id, channels.stdin, piece))
    return piece.length
  }

  #tellChanged(): void {
    this.#changed.resolve()
    this.#changed = Promise.withResolvers<void>()
  }
}

/** A piece of output; its buffer may have spare room. A piece without a buffer is still in the shared memory. */
type Piece = { channel: number; length: number; skipped: number; isExtra?: true } & (
  | { buffer: Uint8Array }
  | { extent: Extent }
)

/** At most one window of output, waiting to be taken. */
export class Output<Chunk> implements AsyncIterable<Chunk> {
  readonly #toChunk: (channel: number, bytes: Uint8Array, about: Pick<Piece, "skipped" | "isExtra">) => Chunk
  readonly #giveBack: (count: number) => void
  readonly #withinDeadline: WithinDeadline
  readonly #region: Region | undefined
  readonly #onUnreadable: () => void
  #pieces: Piece[] = []
  #allowance: number = wireLimits.windowBytes
  #owed = 0
  /** Missing bytes of each channel before its next ones. */
  readonly #skipped = new Map<number, number>()
  #end: { error: AppError | undefined } | undefined
  #isDiscarding = false
  #isGivenUp = false
  #changed = Promise.withResolvers<void>()

  constructor(options: {
    toChunk: (channel: number, bytes: Uint8Array, about: Pick<Piece, "skipped" | "isExtra">) => Chunk
    giveBack: (count: number) => void
    withinDeadline: WithinDeadline
    region: Region | undefined
    /** Called when the shared memory cannot be read. */
    onUnreadable: () => void
  }) {
    this.#toChunk = options.toChunk
    this.#giveBack = options.giveBack
    this.#withinDeadline = options.withinDeadline
    this.#region = options.region
    this.#onUnreadable = options.onUnreadable
  }

  put(channel: number, bytes: Uint8Array): void {
    if (!this.#isWanted(bytes.length)) return
    const skipped = this.#skipped.get(channel) ?? 0
    this.#skipped.delete(channel)
    if (skipped > 0) this.#checkRoom()
    if (skipped > 0 || !this.#join(channel, bytes))
      this.#pieces.push({ channel, buffer: bytes, length: bytes.length, skipped })
    this.#tellChanged()
  }

  /** Puts text at this place that does not come from the window. */
  insert(channel: number, bytes: Uint8Array): void {
    if (this.#isDiscarding || this.#isGivenUp || this.#end) return
    this.#checkRoom()
    this.#pieces.push({ channel, buffer: bytes, length: bytes.length, skipped: 0, isExtra: true })
    this.#tellChanged()
  }

  /** Returns false if no bytes of the channel have come since the last one. */
  skip(channel: number, count: number): boolean {
    const before = this.#skipped.get(channel) ?? 0
    if (count > 0) this.#skipped.set(channel, before + count)
    return count > 0 && before === 0
  }

  /** Output in the shared memory; read when the consumer takes it. */
  putAt(channel: number, extent: Extent): void {
    if (!this.#region) throw new WireError("output in shared memory that the stream was not given")
    if (channel !== channels.stdout) throw new WireError(`output in shared memory on channel ${channel}`)
    this.#region.receive(extent)
    if (!this.#isWanted(extent.length)) return
    if (!this.#joinAt(extent)) this.#pieces.push({ channel, extent, length: extent.length, skipped: 0 })
    this.#tellChanged()
  }

  end(error?: AppError): void {
    if (error) this.giveUp(error)
    this.#putLastGaps()
    this.#end ??= { error }
    this.#finishReading()
    this.#tellChanged()
  }

  /** Missing bytes that no others follow come with an empty piece. */
  #putLastGaps(): void {
    if (this.#isDiscarding || this.#isGivenUp || this.#end) return
    for (const [channel, skipped] of this.#skipped)
      this.#pieces.push({ channel, buffer: new Uint8Array(), length: 0, skipped })
    this.#skipped.clear()
  }

  /** Drops the pieces that wait in the shared memory and releases their region. Later reads throw the error. */
  giveUp(error: AppError): void {
    if (!this.#region || this.#isGivenUp) return
    this.#isGivenUp = true
    if (this.#pieces.length > 0 || !this.#end) this.#end = { error }
    this.#pieces = []
    this.#region.finishReading()
    this.#tellChanged()
  }

  /** Drops queued and future output. */
  discard(): void {
    if (this.#isDiscarding) return
    this.#isDiscarding = true
    const waiting = this.#pieces.reduce((sum, piece) => sum + (piece.isExtra ? 0 : piece.length), 0)
    this.#pieces = []
    this.#taken(waiting)
    this.#finishReading()
    this.#tellChanged()
  }

  [Symbol.asyncIterator](): AsyncIterator<Chunk, undefined> {
    return {
      next: async () => {
        for (;;) {
          const piece = this.#pieces.shift()
          if (piece) return { done: false, value: this.#toChunk(piece.channel, this.#take(piece), piece) }
          if (this.#end?.error && !this.#isDiscarding) throw this.#end.error
          if (this.#end || this.#isDiscarding) return { done: true, value: undefined }
          await this.#withinDeadline(this.#changed.promise)
        }
      },
      return: async () => {
        this.discard()
        return { done: true, value: undefined }
      },
    }
  }

  /** For a piece that cannot be joined to another. */
  #checkRoom(): void {
    if (this.#pieces.length >= piecesMax) throw new WireError("too many gaps and texts in the output")
  }

  #isWanted(count: number): boolean {
    if (count > this.#allowance) throw new WireError("more output than the window allows")
    this.#allowance -= count
    if (this.#isDiscarding) this.#taken(count)
    return !this.#isDiscarding && !this.#isGivenUp
  }

  #take(piece: Piece): Uint8Array {
    const bytes = "buffer" in piece ? piece.buffer.subarray(0, piece.length) : this.#read(piece.extent)
    if (!piece.isExtra) this.#taken(piece.length)
    this.#finishReading()
    return bytes
  }

  #read(extent: Extent): Uint8Array {
    try {
      if (this.#region) return this.#region.read(extent)
      throw new Error("a piece in no region")
    } catch (error) {
      this.#onUnreadable()
      throw error
    }
  }

  /** Releases the region once the stream has ended and no piece waits. */
  #finishReading(): void {
    if (this.#pieces.length === 0 && (this.#end || this.#isDiscarding)) this.#region?.finishReading()
  }

  #taken(count: number): void {
    this.#owed += count
    if (this.#owed < owedBytesMin || this.#end) return
    this.#allowance += this.#owed
    this.#giveBack(this.#owed)
    this.#owed = 0
  }

  /** Merges adjacent extents into one read; so there are at most two, on either side of the region's end. */
  #joinAt(extent: Extent): boolean {
    const last = this.#pieces.at(-1)
    if (!last || !("extent" in last) || last.extent.offset + last.length !== extent.offset) return false
    last.length += extent.length
    last.extent.length = last.length
    return true
  }

  /** Appends a small piece to the one before it, so that a flood of single bytes does not cost an object each. */
  #join(channel: number, bytes: Uint8Array): boolean {
    const candidates = this.#pieces.length < piecesMax ? [this.#pieces.at(-1)] : this.#pieces.slice(-2)
    for (const piece of candidates) {
      if (
        piece?.channel !== channel ||
        piece.isExtra ||
        !("buffer" in piece) ||
        piece.length + bytes.length > wireLimits.dataBytesMax
      )
        continue
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
