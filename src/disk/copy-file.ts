/** Copying a large file as fast as the filesystem allows: shared blocks where it can, else only what holds data. */

import { constants } from "node:fs"
import { copyFile, type FileHandle, open, rm } from "node:fs/promises"
import { Checksum } from "../lib/checksum.ts"
import { nextExtent } from "../lib/posix.ts"

export const chunkBytes = 4 * 1024 * 1024

/** Copies to a new file and gives a checksum over what was copied. The source must not change meanwhile. */
export async function copyFileWithChecksum(
  from: string,
  to: string,
  { signal }: { signal?: AbortSignal } = {},
): Promise<{ checksum: string }> {
  if (await tryShare(from, to)) return { checksum: await fileChecksum(from) }
  const source = await open(from, "r")
  try {
    const target = await open(to, "wx", 0o600)
    try {
      const { size } = await source.stat()
      await target.truncate(size)
      const checksum = await readExtents(source, size, async (bytes, offset) => {
        signal?.throwIfAborted()
        await writeAll(target, bytes, offset)
      })
      return { checksum }
    } finally {
      await target.close()
    }
  } finally {
    await source.close()
  }
}

export async function writeAll(target: FileHandle, bytes: Uint8Array, offset: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    done += (await target.write(bytes, done, bytes.length - done, offset + done)).bytesWritten
  }
}

/** Both files have the same blocks until one is written to: no matter how large, it takes no time and no space. */
export async function tryShare(from: string, to: string): Promise<boolean> {
  try {
    await copyFile(from, to, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE_FORCE)
    return true
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (
      code !== undefined &&
      ["ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EXDEV", "EINVAL", "ENOTTY"].includes(code)
    ) {
      // It may have been made before that was found out; one that was there already is EEXIST.
      await rm(to, { force: true })
      return false
    }
    throw error
  }
}

/** Over size, places and bytes of what holds data. */
export async function fileChecksum(path: string): Promise<string> {
  const source = await open(path, "r")
  try {
    return await readExtents(source, (await source.stat()).size, async () => undefined)
  } finally {
    await source.close()
  }
}

/**
 * Calls `take` with every chunk that is not all zeros, the last one cut to the file's size. Holes are as good as zeros: the checksum
 * does not tell them apart, since a copy may have others than its source.
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
    // In steps of whole chunks from the file's start, so that the same content gives the same steps whatever its holes.
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

/** Of at most a chunk. */
export function isZero(bytes: Uint8Array): boolean {
  return Buffer.compare(bytes, zeros.subarray(0, bytes.length)) === 0
}
