/** Reads large sparse files, and computes a checksum that does not depend on where their holes are. */

import { type FileHandle, open } from "node:fs/promises"
import { Checksum } from "./checksum.ts"
import { nextExtent } from "./posix.ts"

export const chunkBytes = 4 * 1024 * 1024
const pageBytes = 4096

/** Checksum over the size and the places and bytes of data. `pause` is awaited after every part. */
export async function fileChecksum(
  path: string,
  { pause }: { pause?: () => Promise<void> } = {},
): Promise<string> {
  await using source = await open(path, "r")
  return await readExtents(source, (await source.stat()).size, async () => pause?.())
}

/**
 * Calls `take` with every chunk that is not all zeros, the last one cut to the file's size. Holes count as zeros: a
 * copy may have other holes than its source, and the checksum must not differ.
 */
export async function readExtents(
  source: FileHandle,
  size: number,
  take: (bytes: Uint8Array, offset: number) => Promise<void>,
): Promise<string> {
  const checksum = new Checksum()
  const header = Buffer.alloc(8)
  header.writeBigUInt64LE(BigInt(size))
  checksum.add(header)
  const buffer = Buffer.allocUnsafe(chunkBytes)
  const place = Buffer.alloc(8)
  for (let offset = 0; offset < size; ) {
    const extent = nextExtent({ fd: source.fd, offset })
    if (!extent) break
    // Steps are whole chunks from the file's start, so that equal content gives equal steps whatever its holes.
    offset = extent.start - (extent.start % chunkBytes)
    const { bytesRead } = await source.read(buffer, 0, Math.min(chunkBytes, size - offset), offset)
    if (bytesRead === 0) break
    const bytes = buffer.subarray(0, bytesRead)
    if (!isZero(bytes)) {
      place.writeBigUInt64LE(BigInt(offset))
      checksum.add(place)
      checksum.add(bytes)
      await take(bytes, offset)
    }
    offset += bytesRead
  }
  return checksum.value()
}

const zeros = Buffer.alloc(chunkBytes)

/** Takes at most one chunk. */
export function isZero(bytes: Uint8Array): boolean {
  return Buffer.compare(bytes, zeros.subarray(0, bytes.length)) === 0
}

/** Yields the non-zero runs of a chunk, in whole pages. */
export function* nonZeroRuns(bytes: Uint8Array): Generator<{ start: number; end: number }> {
  let start = -1
  for (let page = 0; page < bytes.length; page += pageBytes) {
    const end = Math.min(page + pageBytes, bytes.length)
    const isEmpty = isZero(bytes.subarray(page, end))
    if (!isEmpty && start < 0) start = page
    if (isEmpty && start >= 0) {
      yield { start, end: page }
      start = -1
    }
  }
  if (start >= 0) yield { start, end: bytes.length }
}
