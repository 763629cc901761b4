/** Where a local file has data. Node.js cannot ask for it, so the C library is. */

import { cLibraryOf } from "../c-library.ts"
import type { Extent } from "./sparse.ts"

/** Linux's numbers; other systems have others. */
const seekData = 3
const seekHole = 4
/** Size of all holes that is worth a map. */
const holesBytesMin = 64 * 1024
const extentsMax = 65_536

/** Returns undefined if the file is to be read as a whole. The last extent ends where the file ends. */
export async function dataExtentsOf(
  fd: number,
  { size, blocks }: { size: number; blocks: number },
): Promise<Extent[] | undefined> {
  if (process.platform !== "linux" || size - blocks * 512 < holesBytesMin) return undefined
  const seek = await openSeek()
  const extents: Extent[] = []
  for (let at = 0; seek && at < size; ) {
    const offset = seek(fd, at, seekData)
    // Only a hole is left.
    if (offset < 0) break
    const end = Math.min(seek(fd, offset, seekHole), size)
    if (end <= offset || extents.length === extentsMax) return undefined
    extents.push({ offset, length: end - offset })
    at = end
  }
  return seek && [...extents, { offset: size, length: 0 }]
}

type Seek = (fd: number, offset: number, whence: number) => number

/** Returns undefined on a system with another C library. */
async function openSeek(): Promise<Seek | undefined> {
  const { dlopen, FFIType } = await import("bun:ffi")
  try {
    const { symbols } = dlopen(cLibraryOf(process.platform), {
      lseek: { args: [FFIType.i32, FFIType.i64, FFIType.i32], returns: FFIType.i64 },
    })
    return (fd, offset, whence) => Number(symbols.lseek(fd, BigInt(offset), whence))
  } catch {
    return undefined
  }
}
