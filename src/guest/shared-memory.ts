/**
 * The host's end of the memory that a machine shares with this host: allocates its regions to streams.
 *
 *   0          to the guest           half         from the guest           end
 *   | region | region | region | region | region | region | region | mark   |
 *
 * A region is as long as a stream's window and belongs to one stream, so credit alone keeps unread bytes from being
 * overwritten. A region is free again once the guest has closed the stream, after which none of its data is in
 * flight, and the host has read all that arrived. The mark is the connection's nonce. It shows a guest that the
 * memory has been replaced: in a copy of its machine, even one taken in the middle of a transfer, or after a new
 * connection.
 *
 * Guest and QEMU may be hostile and can change the memory at any time, so each byte is read once, into a copy. The
 * memory is not mapped here: truncating the file would crash a process that maps it.
 */

import { closeSync, fstatSync, readSync, writeSync } from "node:fs"
import { AppError } from "@bhatti/contract/errors"
import { punchHole } from "../lib/posix.ts"
import { type Extent, WireError, wireLimits } from "./frame.ts"

const regionBytes = wireLimits.windowBytes

/** Opens the memory. Returns a descriptor that is closed here, or undefined if the memory is not available. */
export type OpenShared = () => number | undefined

/** A stream claims a region for bytes to the guest or from it. */
export type Direction = "to guest" | "from guest"

export class SharedMemory {
  #open: OpenShared | undefined
  #memory: { fd: number; bytes: number } | undefined
  /** Regions by the streams that hold them. */
  readonly #regions = new Map<number, Region>()
  readonly #mark: () => Uint8Array

  /** `mark` is the nonce that the guest has confirmed. */
  constructor(mark: () => Uint8Array) {
    this.#mark = mark
  }

  /** Opens it when it is first needed. */
  use(open: OpenShared): void {
    this.#open = open
  }

  /** Claims a region for a stream that has none yet. Returns undefined if none is free. */
  claim(stream: number, direction: Direction): Region | undefined {
    const memory = this.#opened()
    if (!memory) return undefined
    const half = Math.floor(memory.bytes / regionBytes / 2) * regionBytes
    const [start, end] = direction === "to guest" ? [0, half] : [half, memory.bytes - regionBytes]
    const used = new Set([...this.#regions.values()].map(({ base }) => base))
    for (let base = start; base < end; base += regionBytes) {
      if (used.has(base)) continue
      if (used.size === 0 && !this.#isMarked(memory)) return undefined
      const region = new Region({
        base,
        direction,
        descriptor: () => this.#memory?.fd,
        onFree: () => this.#free(stream),
      })
      this.#regions.set(stream, region)
      return region
    }
    return undefined
  }

  /** The guest has sent the last frame of that stream, which the host may have cancelled already. */
  guestClosed(stream: number): void {
    this.#regions.get(stream)?.finishWriting()
  }

  /** The connection is over. Its regions must not be read any more, since the next connection may use them. */
  close(): void {
    this.#open = undefined
    this.#regions.clear()
    if (!this.#memory) return
    this.#giveBack()
    closeSync(this.#memory.fd)
    this.#memory = undefined
  }

  #opened(): { fd: number; bytes: number } | undefined {
    if (this.#memory || !this.#open) return this.#memory
    const fd = this.#open()
    // Tried once: if it cannot be opened now, it counts as missing.
    this.#open = undefined
    if (fd !== undefined) this.#memory = { fd, bytes: fstatSync(fd).size }
    return this.#memory
  }

  /** Writes the mark before any other data; the mark is lost whenever the last region is freed. */
  #isMarked({ fd, bytes }: { fd: number; bytes: number }): boolean {
    const mark = this.#mark()
    try {
      return writeSync(fd, mark, 0, mark.length, bytes - regionBytes) === mark.length
    } catch {
      return false
    }
  }

  #free(stream: number): void {
    this.#regions.delete(stream)
    if (this.#regions.size === 0) this.#giveBack()
  }

  /** An idle machine's shared memory takes no pages of the host. */
  #giveBack(): void {
    if (this.#memory) punchHole(this.#memory.fd, { offset: 0, bytes: this.#memory.bytes })
  }
}

export class Region {
  readonly base: number
  readonly #descriptor: () => number | undefined
  readonly #onFree: () => void
  /** Offset of the next piece. */
  #at = 0
  #isWritten = false
  #isRead: boolean

  constructor(options: {
    base: number
    direction: Direction
    descriptor: () => number | undefined
    onFree: () => void
  }) {
    this.base = options.base
    // The guest reads this region itself, and has finished when it closes the stream.
    this.#isRead = options.direction === "to guest"
    this.#descriptor = options.descriptor
    this.#onFree = options.onFree
  }

  /**
   * Writes as many of the bytes as fit before the region's end, behind earlier ones. The caller has credit for
   * them.
   */
  write(bytes: Uint8Array): Extent {
    const length = Math.min(bytes.length, wireLimits.sharedPieceBytesMax, regionBytes - this.#at)
    const extent = { offset: this.base + this.#at, length }
    this.#transfer("written", length, (fd) => writeSync(fd, bytes, 0, length, extent.offset))
    this.#advance(length)
    return extent
  }

  /** The guest reports that it has written the next piece. */
  receive({ offset, length }: Extent): void {
    if (offset !== this.base + this.#at || this.#at + length > regionBytes) {
      throw new WireError("output in a part of the shared memory where it does not belong")
    }
    this.#advance(length)
  }

  /** Returns a copy of the current contents. */
  read({ offset, length }: Extent): Uint8Array {
    const bytes = Buffer.allocUnsafeSlow(length)
    this.#transfer("read", length, (fd) => readSync(fd, bytes, 0, length, offset))
    return bytes
  }

  /** The guest writes no more here, or has read everything it will read. */
  finishWriting(): void {
    this.#isWritten = true
    if (this.#isRead) this.#onFree()
  }

  /** The host reads no more here. */
  finishReading(): void {
    if (this.#isRead) return
    this.#isRead = true
    if (this.#isWritten) this.#onFree()
  }

  #advance(length: number): void {
    this.#at = (this.#at + length) % regionBytes
  }

  #transfer(done: string, length: number, call: (fd: number) => number): void {
    const fd = this.#descriptor()
    if (fd === undefined) throw new AppError("unavailable", "the channel to the guest is lost")
    let cause: unknown
    try {
      if (call(fd) === length) return
    } catch (error) {
      cause = error
    }
    throw new AppError("unavailable", `the memory shared with the machine cannot be ${done}`, { cause })
  }
}
