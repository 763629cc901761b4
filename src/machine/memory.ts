/**
 * A template's memory: on disk a sparse file, in use a write-sealed memory file that all its clones map privately. Sealing
 * is what keeps one sandbox's QEMU, however broken, from changing what the next one starts with.
 */

import { closeSync } from "node:fs"
import { open } from "node:fs/promises"
import { createMemoryFile, nextExtent, sealMemoryFile } from "../lib/posix.ts"

const chunkBytes = 4 * 1024 * 1024
const pageBytes = 4096
const zeroPage = Buffer.alloc(pageBytes)

/** Writes the used pages of the memory file `fd` to a new file and syncs it. */
export async function writeMemory(options: { fd: number; bytes: number; path: string }): Promise<void> {
  const file = await open(options.path, "wx", 0o600)
  try {
    await file.truncate(options.bytes)
    const source = await open(`/proc/self/fd/${options.fd}`, "r")
    try {
      for await (const { offset, bytes } of extents(options.fd, source, options.bytes)) {
        for (const run of nonZeroRuns(bytes))
          await file.write(bytes, run.start, run.end - run.start, offset + run.start)
      }
    } finally {
      await source.close()
    }
    await file.sync()
  } finally {
    await file.close()
  }
}

/** The memory file of a template on disk, sealed. The caller owns the descriptor. */
export async function readMemory(options: { path: string; bytes: number }): Promise<number> {
  const fd = createMemoryFile({ name: "bhatti-template", bytes: options.bytes })
  const source = await open(options.path, "r")
  try {
    const target = await open(`/proc/self/fd/${fd}`, "r+")
    try {
      for await (const { offset, bytes } of extents(source.fd, source, options.bytes)) {
        await target.write(bytes, 0, bytes.length, offset)
      }
    } finally {
      await target.close()
    }
    sealMemoryFile(fd)
    return fd
  } catch (error) {
    closeSync(fd)
    throw error
  } finally {
    await source.close()
  }
}

type Readable = {
  read(buffer: Buffer, offset: number, length: number, position: number): Promise<{ bytesRead: number }>
}

async function* extents(
  fd: number,
  source: Readable,
  totalBytes: number,
): AsyncGenerator<{ offset: number; bytes: Buffer }> {
  const buffer = Buffer.allocUnsafe(chunkBytes)
  for (let offset = 0; offset < totalBytes; ) {
    const extent = nextExtent({ fd, offset })
    if (!extent) return
    for (offset = extent.start; offset < extent.end; ) {
      const { bytesRead } = await source.read(buffer, 0, Math.min(chunkBytes, extent.end - offset), offset)
      if (bytesRead === 0) return
      yield { offset, bytes: buffer.subarray(0, bytesRead) }
      offset += bytesRead
    }
  }
}

function* nonZeroRuns(bytes: Buffer): Generator<{ start: number; end: number }> {
  let start = -1
  for (let page = 0; page < bytes.length; page += pageBytes) {
    const end = Math.min(page + pageBytes, bytes.length)
    const isZero = bytes.compare(zeroPage, 0, end - page, page, end) === 0
    if (!isZero && start < 0) start = page
    if (isZero && start >= 0) {
      yield { start, end: page }
      start = -1
    }
  }
  if (start >= 0) yield { start, end: bytes.length }
}
