/**
 * Digest of a disk file that is mostly holes: SHA-256 over the 1 MiB blocks that are not all zero, each preceded by
 * its number, and over the size. Computing it reads only stored blocks, and the layout of the holes does not change
 * it.
 */
import { createHash } from "node:crypto"
import { type FileHandle, open } from "node:fs/promises"
import { nextExtent } from "../lib/posix.ts"

const blockBytes = 1024 * 1024

export async function diskDigest(path: string): Promise<string> {
  await using file = await open(path, "r")
  const { size } = await file.stat()
  const hash = createHash("sha256").update(`${size}\n`)
  const block = Buffer.alloc(blockBytes)
  const zero = Buffer.alloc(blockBytes)
  let extent = nextExtent({ fd: file.fd, offset: 0 })
  while (extent !== undefined) {
    const number = Math.floor(extent.start / blockBytes)
    const content = block.subarray(0, await readFully(file, block, number * blockBytes))
    if (!content.equals(zero.subarray(0, content.length))) hash.update(`${number}\n`).update(content)
    extent = nextExtent({ fd: file.fd, offset: (number + 1) * blockBytes })
  }
  return hash.digest("hex")
}

async function readFully(file: FileHandle, block: Buffer, position: number): Promise<number> {
  let filled = 0
  while (filled < block.length) {
    const { bytesRead } = await file.read(block, filled, block.length - filled, position + filled)
    if (bytesRead === 0) break
    filled += bytesRead
  }
  return filled
}
