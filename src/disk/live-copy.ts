/**
 * A copy of a file that others keep writing to. Each catch-up reads the whole source and writes the blocks that
 * differ. The copy equals its source after a pass during which nobody writes. A checksum of each block records what
 * the copy holds, so the copy is never read. Each copy seeds its checksums differently, because the guest chooses
 * the contents of a disk.
 */

import { constants } from "node:fs"
import { type FileHandle, open, rm, stat } from "node:fs/promises"
import { punchHole } from "../lib/posix.ts"
import { chunkBytes, isZero, readExtents } from "../lib/sparse-file.ts"
import { tryShare, writeAll } from "./copy-file.ts"

const blockBytes = 256 * 1024

/** Stands in for a block's checksum, which is always odd. */
const zeros = 0n

export class LiveCopy {
  readonly #from: string
  readonly #to: string
  readonly #seed = crypto.getRandomValues(Buffer.alloc(8)).readBigUInt64LE()
  /** Checksums of the copy's blocks, and the copy's size. */
  #sums = new BigUint64Array(0)
  #size = 0
  /** The source's modification time before it was last read. */
  #mtimeNs = 0n
  #canShare: boolean | undefined

  constructor(options: { from: string; to: string }) {
    this.#from = options.from
    this.#to = options.to
  }

  /** Runs while others write. Does nothing where the file system can share blocks, since a pass would gain nothing. */
  async catchUp({ signal }: { signal: AbortSignal }): Promise<void> {
    if (this.#canShare === undefined) {
      this.#canShare = await tryShare(this.#from, this.#to)
      if (this.#canShare) await rm(this.#to)
    }
    if (this.#canShare) return
    // A write in progress may have changed the time already, so the time only tells whether a pass is worthwhile.
    const { mtimeNs } = await stat(this.#from, { bigint: true })
    if (mtimeNs === this.#mtimeNs) return
    this.#mtimeNs = mtimeNs
    await this.#update(signal)
  }

  /** Runs while nobody writes. Returns the same checksum as `fileChecksum` if this pass happened to compute it. */
  async finish({ signal }: { signal: AbortSignal }): Promise<string | undefined> {
    if (this.#canShare !== false && (await tryShare(this.#from, this.#to))) return undefined
    return this.#update(signal)
  }

  async #update(signal: AbortSignal): Promise<string> {
    await using source = await open(this.#from, "r")
    await using target = await open(this.#to, constants.O_RDWR | constants.O_CREAT, 0o600)
    await this.#resize(target, (await source.stat()).size)
    let next = 0
    const checksum = await readExtents(source, this.#size, async (bytes, offset) => {
      signal.throwIfAborted()
      if (bytes.length < Math.min(chunkBytes, this.#size - offset)) {
        throw new Error(`${this.#from} became shorter while it was copied`)
      }
      const block = offset / blockBytes
      await this.#clear(target, next, block)
      next = await this.#write(target, block, bytes)
    })
    await this.#clear(target, next, this.#sums.length)
    return checksum
  }

  async #resize(target: FileHandle, size: number): Promise<void> {
    const sums = new BigUint64Array(Math.ceil(size / blockBytes))
    sums.set(this.#sums.subarray(0, sums.length))
    await target.truncate(size)
    this.#sums = sums
    this.#size = size
  }

  /** Clears the copy's blocks in a range where the source has a hole. */
  async #clear(target: FileHandle, from: number, to: number): Promise<void> {
    for (let block = from; block < to; block++) {
      if (this.#sums[block] === zeros) continue
      const place = {
        offset: block * blockBytes,
        bytes: Math.min(blockBytes, this.#size - block * blockBytes),
      }
      if (!punchHole(target.fd, place)) await writeAll(target, Buffer.alloc(place.bytes), place.offset)
      this.#sums[block] = zeros
    }
  }

  /** Writes the blocks that differ, adjacent ones together. Returns the index of the block after them. */
  async #write(target: FileHandle, first: number, bytes: Uint8Array): Promise<number> {
    const sums = new BigUint64Array(Math.ceil(bytes.length / blockBytes))
    for (const index of sums.keys()) {
      const block = bytes.subarray(index * blockBytes, (index + 1) * blockBytes)
      sums[index] = isZero(block) ? zeros : Bun.hash.xxHash3(block, this.#seed) | 1n
    }
    for (let from = 0; from < sums.length; ) {
      let to = from
      while (to < sums.length && sums[to] !== this.#sums[first + to]) to++
      if (to > from) {
        const differing = bytes.subarray(from * blockBytes, to * blockBytes)
        await writeAll(target, differing, (first + from) * blockBytes)
        this.#sums.set(sums.subarray(from, to), first + from)
      }
      from = to + 1
    }
    return first + sums.length
  }
}
