/** Names at the top of a tar archive, found by its headers alone: the contents are skipped. */

import type { FileHandle } from "node:fs/promises"

const blockBytes = 512
const headersMax = 200_000

/** Returns those of the wanted names that the archive has, or undefined if it is no tar archive. */
export async function namesIn(
  file: FileHandle,
  wanted: ReadonlySet<string>,
): Promise<Set<string> | undefined> {
  const found = new Set<string>()
  const header = Buffer.alloc(blockBytes)
  let offset = 0
  for (let count = 0; count < headersMax; count++) {
    const { bytesRead } = await file.read(header, 0, blockBytes, offset)
    if (bytesRead < blockBytes || header.every((byte) => byte === 0)) return count === 0 ? undefined : found
    if (!hasChecksum(header)) return count === 0 ? undefined : found
    const name = textAt(header, 0, 100).replace(/^\.\//, "")
    if (wanted.has(name)) found.add(name)
    offset += blockBytes + Math.ceil(sizeIn(header) / blockBytes) * blockBytes
  }
  return found
}

function hasChecksum(header: Buffer): boolean {
  const told = Number.parseInt(textAt(header, 148, 8).trim(), 8)
  let sum = 0
  for (let at = 0; at < blockBytes; at++) sum += at >= 148 && at < 156 ? 32 : (header[at] ?? 0)
  return told === sum
}

/** Octal, or binary with the first bit set for 8 GiB and more. */
function sizeIn(header: Buffer): number {
  if (((header[124] ?? 0) & 0x80) === 0) return Number.parseInt(textAt(header, 124, 12).trim() || "0", 8)
  return Number(header.readBigUInt64BE(128))
}

function textAt(header: Buffer, start: number, length: number): string {
  const bytes = header.subarray(start, start + length)
  const end = bytes.indexOf(0)
  return bytes.subarray(0, end < 0 ? length : end).toString("latin1")
}
