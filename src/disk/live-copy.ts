/**
 * A copy of a file that others write to meanwhile: brought up to date as often as one likes, each time by reading all of the
 * source and writing what differs, and the same as its source once that was done while nobody wrote. What the copy holds is
 * known by a checksum of each block, so that it is never read. Every copy has a seed of its own for them, since what a disk
 * holds is a guest's choice.
 */

import { constants } from "node:fs"
import { type FileHandle, open, rm } from "node:fs/promises"
import { nextExtent } from "../lib/posix.ts"
import { isZero, tryShare, writeAll } from "./copy-file.ts"

const blockBytes = 256 * 1024
/** Read at once. */
const chunkBytes = 16 * blockBytes

/** In place of a block's checksum, which is always odd. */
const zeros = 0n

export class LiveCopy {
  readonly #from: string
  readonly #to: string
  readonly #seed = crypto.getRandomValues(Buffer.alloc(8)).readBigUInt64LE()
  /** Of the copy's blocks, and its size. */
  #sums = new BigUint64Array(0)
  #size = 0
  #canShare: boolean | undefined

  constructor(options: { from: string; to: string }) {
    this.#from = options.from
    this.#to = options.to
  }

  /** While others write. Where blocks can be shared nothing is gained by that. */
  async catchUp({ signal }: { signal: AbortSignal }): Promise<void> {
    if (this.#canShare === undefined) {
      this.#canShare = await tryShare(this.#from, this.#to)
      if (this.#canShare) await rm(this.#to)
    }
    if (!this.#canShare) await this.#update(signal)
  }

  /** While nobody writes. */
  async finish({ signal }: { signal: AbortSignal }): Promise<void> {
    if (this.#canShare !== false && (await tryShare(this.#from, this.#to))) return
    await this.#update(signal)
  }

  async #update(signal: AbortSignal): Promise<void> {
    const source = await open(this.#from, "r")
    try {
      const target = await open(this.#to, constants.O_RDWR | constants.O_CREAT, 0o600)
      try {
        await this.#resize(target, (await source.stat()).size)
        const buffer = Buffer.allocUnsafe(chunkBytes)
        for (let block = 0; block < this.#sums.length; ) {
          signal.throwIfAborted()
          const extent = nextExtent({ fd: source.fd, offset: block * blockBytes })
          const start = extent ? Math.floor(extent.start / blockBytes) : this.#sums.length
          // Holes of the source, where the copy may still have what was there before.
          await this.#write(target, block, new BigUint64Array(start - block), undefined)
          block = start
          if (extent) block += await this.#copyChunk(source, target, start, buffer)
        }
      } finally {
        await target.close()
      }
    } finally {
      await source.close()
    }
  }

  async #resize(target: FileHandle, size: number): Promise<void> {
    const sums = new BigUint64Array(Math.ceil(size / blockBytes))
    sums.set(this.#sums.subarray(0, sums.length))
    await target.truncate(size)
    this.#sums = sums
    this.#size = size
  }

  /** Gives how many blocks that were. */
  async #copyChunk(source: FileHandle, target: FileHandle, first: number, buffer: Buffer): Promise<number> {
    const offset = first * blockBytes
    const bytes = buffer.subarray(0, Math.min(chunkBytes, this.#size - offset))
    for (let done = 0; done < bytes.length; ) {
      const { bytesRead } = await source.read(bytes, done, bytes.length - done, offset + done)
      if (bytesRead === 0) throw new Error(`${this.#from} became shorter while it was copied`)
      done += bytesRead
    }
    const sums = new BigUint64Array(Math.ceil(bytes.length / blockBytes))
    for (const index of sums.keys()) {
      sums[index] = this.#sumOf(bytes.subarray(index * blockBytes, (index + 1) * blockBytes))
    }
    await this.#write(target, first, sums, bytes)
    return sums.length
  }

  #sumOf(block: Uint8Array): bigint {
    return isZero(block) ? zeros : Bun.hash.xxHash3(block, this.#seed) | 1n
  }

  /** Those of the blocks that the copy has not yet; without bytes they are zeros. Neighbours are written together. */
  async #write(
    target: FileHandle,
    first: number,
    sums: BigUint64Array,
    bytes: Uint8Array | undefined,
  ): Promise<void> {
    for (let from = 0; from < sums.length; ) {
      let to = from
      const end = Math.min(sums.length, from + chunkBytes / blockBytes)
      while (to < end && sums[to] !== this.#sums[first + to]) to++
      if (to > from) {
        const offset = (first + from) * blockBytes
        const length = Math.min(to * blockBytes, this.#size - first * blockBytes) - from * blockBytes
        const content = bytes?.subarray(from * blockBytes, from * blockBytes + length) ?? Buffer.alloc(length)
        await writeAll(target, content, offset)
        this.#sums.set(sums.subarray(from, to), first + from)
      }
      from = Math.max(to, from + 1)
    }
  }
}
