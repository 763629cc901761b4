/**
 * Signatures of macOS programs, for one who has no macOS. A compiled program for x86-64 still carries the signature of
 * the runtime that it was made from, which fits it no longer, and macOS kills what does not fit. `signAdHoc` replaces
 * it by one without an identity, as a linker on macOS makes it; `checkSignature` computes all of it again.
 */

import { createHash } from "node:crypto"

const codeSignatureCommand = 0x1d
const segmentCommand = 0x19
const pageBytes = 4096
/** Everything in a signature is big-endian, all else in the file little-endian. */
const magic = { program: 0xfeedfacf, signature: 0xfade0cc0, codeDirectory: 0xfade0c02 }
const cpus: Record<number, string> = { 16777223: "x64", 16777228: "arm64" }

type Segment = { at: number; name: string; fileOffset: number; fileBytes: number }
type Program = { cpu: string; signature: { at: number; offset: number; bytes: number }; segments: Segment[] }

export function readMachO(file: Buffer): Program {
  if (file.readUInt32LE(0) !== magic.program) throw new Error("this is no 64-bit program for macOS")
  const segments: Segment[] = []
  let signature: Program["signature"] | undefined
  for (let at = 32, left = file.readUInt32LE(16); left > 0; left--, at += file.readUInt32LE(at + 4)) {
    const command = file.readUInt32LE(at)
    if (command === codeSignatureCommand)
      signature = { at, offset: file.readUInt32LE(at + 8), bytes: file.readUInt32LE(at + 12) }
    if (command === segmentCommand)
      segments.push({
        at,
        name: file.toString("latin1", at + 8, at + 24).replace(/\0+$/, ""),
        fileOffset: Number(file.readBigUInt64LE(at + 40)),
        fileBytes: Number(file.readBigUInt64LE(at + 48)),
      })
  }
  if (signature === undefined) throw new Error("it has no place for a signature")
  return { cpu: cpus[file.readUInt32LE(4)] ?? "unknown", signature, segments }
}

/** Names the fault of the signature; returns undefined if all of it fits the file. */
export function checkSignature(file: Buffer): string | undefined {
  const { signature } = readMachO(file)
  if (file.readUInt32BE(signature.offset) !== magic.signature) return "no signature where one should be"
  if (signature.offset + signature.bytes !== file.length) return "the file goes on behind its signature"
  const at = signature.offset + file.readUInt32BE(signature.offset + 16)
  if (file.readUInt32BE(at) !== magic.codeDirectory) return "no table of hashes"
  const [hashesAt, pages, limit] = [
    at + file.readUInt32BE(at + 16),
    file.readUInt32BE(at + 28),
    file.readUInt32BE(at + 32),
  ]
  if (limit !== signature.offset || pages !== Math.ceil(limit / pageBytes))
    return "not all of the file is signed"
  for (let page = 0; page < pages; page++) {
    const hash = file.subarray(hashesAt + 32 * page, hashesAt + 32 * (page + 1))
    if (!hashOfPage(file, page, limit).equals(hash)) return `page ${page} has another hash`
  }
  return undefined
}

export function signAdHoc(file: Buffer, identifier: string): Buffer {
  const { signature, segments } = readMachO(file)
  const text = segments.find(({ name }) => name === "__TEXT")
  const last = segments.find(({ name }) => name === "__LINKEDIT")
  if (text === undefined || last === undefined) throw new Error("segments are missing")
  const limit = signature.offset
  const pages = Math.ceil(limit / pageBytes)
  const name = Buffer.from(`${identifier}\0`)
  const headBytes = 88
  const directoryBytes = headBytes + name.length + 32 * pages
  const blobBytes = 20 + directoryBytes
  // The signed bytes include the signature's place and length.
  const signatureBytes = Math.ceil(blobBytes / 16) * 16
  const code = Buffer.from(file.subarray(0, limit))
  code.writeUInt32LE(signatureBytes, signature.at + 12)
  const lastBytes = limit + signatureBytes - last.fileOffset
  code.writeBigUInt64LE(BigInt(Math.ceil(lastBytes / pageBytes) * pageBytes), last.at + 32)
  code.writeBigUInt64LE(BigInt(lastBytes), last.at + 48)

  const blob = Buffer.alloc(signatureBytes)
  // The signature: one part, the table of hashes, which begins behind these 20 bytes.
  writeWords(blob, 0, [magic.signature, blobBytes, 1, 0, 20])
  const isAdHocByLinker = 0x20002
  writeWords(blob, 20, [magic.codeDirectory, directoryBytes, 0x20400, isAdHocByLinker])
  writeWords(blob, 36, [headBytes + name.length, headBytes, 0, pages, limit])
  // Bytes of a hash, its kind (SHA-256), the platform, and the page's size as a power of two.
  blob.set([32, 2, 0, 12], 56)
  const isMainProgram = 1n
  blob.writeBigUInt64BE(BigInt(text.fileOffset), 20 + 64)
  blob.writeBigUInt64BE(BigInt(text.fileBytes), 20 + 72)
  blob.writeBigUInt64BE(isMainProgram, 20 + 80)
  name.copy(blob, 20 + headBytes)
  for (let page = 0; page < pages; page++)
    hashOfPage(code, page, limit).copy(blob, 20 + headBytes + name.length + 32 * page)
  return Buffer.concat([code, blob])
}

function hashOfPage(file: Buffer, page: number, limit: number): Buffer {
  return createHash("sha256")
    .update(file.subarray(page * pageBytes, Math.min((page + 1) * pageBytes, limit)))
    .digest()
}

function writeWords(buffer: Buffer, at: number, words: readonly number[]): void {
  for (const [index, word] of words.entries()) buffer.writeUInt32BE(word, at + 4 * index)
}
