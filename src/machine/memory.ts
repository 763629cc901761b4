/**
 * A template's memory: a sparse file on disk; in use, a write-sealed memory file that all clones map privately. The
 * seal keeps one sandbox's QEMU, however broken, from changing the memory that the next one starts with.
 */

import { closeSync } from "node:fs"
import { open } from "node:fs/promises"
import { createMemoryFile, sealMemoryFile } from "../lib/posix.ts"
import { nonZeroRuns, readExtents } from "../lib/sparse-file.ts"

/**
 * Writes the used pages of the memory file `fd` to a new file and syncs it. Returns the same checksum as
 * `readMemory`.
 */
export async function writeMemory(options: { fd: number; bytes: number; path: string }): Promise<string> {
  const file = await open(options.path, "wx", 0o600)
  try {
    await file.truncate(options.bytes)
    const source = await open(`/proc/self/fd/${options.fd}`, "r")
    let checksum: string
    try {
      checksum = await readExtents(source, options.bytes, async (bytes, offset) => {
        for (const run of nonZeroRuns(bytes))
          await file.write(bytes, run.start, run.end - run.start, offset + run.start)
      })
    } finally {
      await source.close()
    }
    await file.sync()
    return checksum
  } finally {
    await file.close()
  }
}

/**
 * Loads a template's memory from disk into a sealed memory file and computes its checksum. The caller owns the
 * descriptor.
 */
export async function readMemory(options: {
  path: string
  bytes: number
}): Promise<{ fd: number; checksum: string }> {
  const fd = createMemoryFile({ name: "bhatti-template", bytes: options.bytes })
  const source = await open(options.path, "r")
  try {
    const target = await open(`/proc/self/fd/${fd}`, "r+")
    let checksum: string
    try {
      checksum = await readExtents(source, options.bytes, async (bytes, offset) => {
        for (const run of nonZeroRuns(bytes))
          await target.write(bytes, run.start, run.end - run.start, offset + run.start)
      })
    } finally {
      await target.close()
    }
    sealMemoryFile(fd)
    return { fd, checksum }
  } catch (error) {
    closeSync(fd)
    throw error
  } finally {
    await source.close()
  }
}
