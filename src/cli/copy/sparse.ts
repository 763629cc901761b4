/**
 * Sparse files of an archive, in the PAX format 1.0 of GNU tar: their content begins with a map of where the data
 * belongs. The sandbox made it, so nothing in it is trusted.
 */

import { AppError } from "@bhatti/contract/errors"
import type { Header } from "tar-stream"

/** A part of a file: bytes, or so many zeros that need no place. */
export type Part = Uint8Array | { hole: number }

export type SparseFile = { name: string; size: number; parts: AsyncIterable<Part> }

const blockBytes = 512
/** More than a sandbox's agent writes. */
const extentsMax = 100_000
const mapBytesMax = 4 * 1024 * 1024

/** Returns undefined for an ordinary file. */
export function sparseFileOf(header: Header, content: AsyncIterable<Uint8Array>): SparseFile | undefined {
  const pax = (header.pax ?? {}) as Record<string, string | undefined>
  if (pax["GNU.sparse.major"] === undefined) return undefined
  const { "GNU.sparse.name": name, "GNU.sparse.realsize": realSize = "" } = pax
  const isKnown = pax["GNU.sparse.major"] === "1" && pax["GNU.sparse.minor"] === "0"
  if (!isKnown || name === undefined) throw broken()
  const size = numberOf(realSize)
  return { name, size, parts: partsOf(content, size) }
}

async function* partsOf(content: AsyncIterable<Uint8Array>, size: number): AsyncGenerator<Part> {
  const source = new Source(content)
  const extents = await readMap(source, size)
  let at = 0
  for (const { offset, length } of extents) {
    if (offset > at) yield { hole: offset - at }
    for (let left = length; left > 0; ) {
      const piece = await source.next(left)
      left -= piece.length
      yield piece
    }
    at = offset + length
  }
  if (size > at) yield { hole: size - at }
  if (!(await source.isAtEnd())) throw broken()
}

export type Extent = { offset: number; length: number }

/** The map is text: the number of extents, then offset and length of each, a number in a line, in whole blocks. */
async function readMap(source: Source, size: number): Promise<Extent[]> {
  const lines = linesOf(source)
  const line = async () => numberOf((await lines.next()).value ?? "")
  const count = await line()
  if (count > extentsMax) throw broken()
  const extents: Extent[] = []
  let end = 0
  for (let index = 0; index < count; index++) {
    const [offset, length] = [await line(), await line()]
    if (offset < end || offset + length > size) throw broken()
    extents.push({ offset, length })
    end = offset + length
  }
  await lines.return(undefined)
  return extents
}

/** The PAX records of a sparse file, and the map that its content begins with. */
export function sparseHeaderOf(
  name: string,
  size: number,
  extents: readonly Extent[],
): { pax: Record<string, string>; map: Buffer } {
  const numbers = extents.flatMap(({ offset, length }) => [offset, length])
  const text = [extents.length, ...numbers].map((number) => `${number}\n`).join("")
  const map = Buffer.alloc(Math.ceil(text.length / blockBytes) * blockBytes)
  map.write(text, "latin1")
  const pax = {
    "GNU.sparse.major": "1",
    "GNU.sparse.minor": "0",
    "GNU.sparse.name": name,
    "GNU.sparse.realsize": `${size}`,
  }
  return { pax, map }
}

/** Takes whole blocks from the source. */
async function* linesOf(source: Source): AsyncGenerator<string, undefined> {
  let rest = ""
  for (let taken = 0; taken < mapBytesMax; taken += blockBytes) {
    let block = ""
    while (block.length < blockBytes)
      block += Buffer.from(await source.next(blockBytes - block.length)).toString("latin1")
    const lines = (rest + block).split("\n")
    rest = lines.pop() ?? ""
    yield* lines
  }
  throw broken()
}

/** Bytes in pieces of a wanted size. */
class Source {
  readonly #pieces: AsyncIterator<Uint8Array>
  #rest: Uint8Array = new Uint8Array()

  constructor(content: AsyncIterable<Uint8Array>) {
    this.#pieces = content[Symbol.asyncIterator]()
  }

  /** Returns at least one byte and at most `max`. */
  async next(max: number): Promise<Uint8Array> {
    if (await this.isAtEnd()) throw broken()
    const piece = this.#rest.subarray(0, max)
    this.#rest = this.#rest.subarray(piece.length)
    return piece
  }

  async isAtEnd(): Promise<boolean> {
    while (this.#rest.length === 0) {
      const { done, value } = await this.#pieces.next()
      if (done) return true
      this.#rest = value
    }
    return false
  }
}

function numberOf(text: string): number {
  const value = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN
  if (!Number.isSafeInteger(value)) throw broken()
  return value
}

function broken(): AppError {
  return new AppError("unavailable", "the sandbox sent a broken map of a sparse file", { retryable: false })
}
