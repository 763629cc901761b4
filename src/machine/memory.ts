/**
 * A template's memory: a sparse file on disk; in use, a write-sealed memory file that all clones map privately. The
 * seal keeps one sandbox's QEMU, however broken, from changing the memory that the next one starts with.
 */

import { closeSync } from "node:fs"
import { type FileHandle, open } from "node:fs/promises"
import { createMemoryFile, sealMemoryFile } from "../lib/posix.ts"
import { nonZeroRuns, readExtents } from "../lib/sparse-file.ts"

/**
 * Writes the used pages of the memory file `fd` to a new file and syncs it. Returns the same checksum as
 * `readMemory`.
 */
export async function writeMemory(options: { fd: number; bytes: number; path: string }): Promise<string> {
  await using file = await open(options.path, "wx", 0o600)
  await file.truncate(options.bytes)
  await using source = await open(`/proc/self/fd/${options.fd}`, "r")
  const checksum = await copyPages(source, file, options.bytes)
  await file.sync()
  return checksum
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
  try {
    const checksum = await fillMemory(fd, options)
    sealMemoryFile(fd)
    return { fd, checksum }
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

async function fillMemory(fd: number, { path, bytes }: { path: string; bytes: number }): Promise<string> {
  await using source = await open(path, "r")
  await using target = await open(`/proc/self/fd/${fd}`, "r+")
  return await copyPages(source, target, bytes)
}

function copyPages(source: FileHandle, target: FileHandle, size: number): Promise<string> {
  return readExtents(source, size, async (bytes, offset) => {
    for (const run of nonZeroRuns(bytes))
      await target.write(bytes, run.start, run.end - run.start, offset + run.start)
  })
}
