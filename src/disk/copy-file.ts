/**
 * Copies a large file as fast as the filesystem allows: by sharing blocks if it can, otherwise by copying only the
 * parts that hold data.
 */

import { constants } from "node:fs"
import { copyFile, type FileHandle, open, rm } from "node:fs/promises"
import { errorCodeOf } from "../lib/error-code.ts"
import { fileChecksum, nonZeroRuns, readExtents } from "../lib/sparse-file.ts"

/** Copies to a new file and returns a checksum of what was copied. The source must not change meanwhile. */
export async function copyFileWithChecksum(
  from: string,
  to: string,
  { signal }: { signal?: AbortSignal } = {},
): Promise<{ checksum: string }> {
  if (await tryShare(from, to)) return { checksum: await fileChecksum(from) }
  await using source = await open(from, "r")
  await using target = await open(to, "wx", 0o600)
  const { size } = await source.stat()
  await target.truncate(size)
  const checksum = await readExtents(source, size, async (bytes, offset) => {
    signal?.throwIfAborted()
    for (const { start, end } of nonZeroRuns(bytes))
      await writeAll(target, bytes.subarray(start, end), offset + start)
  })
  return { checksum }
}

export async function writeAll(target: FileHandle, bytes: Uint8Array, offset: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    done += (await target.write(bytes, done, bytes.length - done, offset + done)).bytesWritten
  }
}

/** Both files share blocks until one is written to: that takes no time and no space, whatever the size. */
export async function tryShare(from: string, to: string): Promise<boolean> {
  try {
    await copyFile(from, to, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE_FORCE)
    return true
  } catch (error) {
    const isUnable = ["ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EXDEV", "EINVAL", "ENOTTY"]
    if (isUnable.includes(errorCodeOf(error) ?? "")) {
      // The file may exist by now. A file that existed before fails with EEXIST and is kept.
      await rm(to, { force: true })
      return false
    }
    throw error
  }
}
