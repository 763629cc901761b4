/**
 * Unpacks the contents of kernel packages: the payload of a bzImage and kernel modules, told apart by their magic
 * numbers. zstd and gzip are unpacked here, xz and lz4 by Debian's programs of those names.
 */
import { runProgram } from "../lib/program.ts"

export type Compression = "lz4" | "xz" | "zstd" | "gzip"

const magics: readonly (readonly [Compression, readonly number[]])[] = [
  // The legacy LZ4 frame, the only one the kernel's build uses.
  ["lz4", [0x02, 0x21, 0x4c, 0x18]],
  ["xz", [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]],
  ["zstd", [0x28, 0xb5, 0x2f, 0xfd]],
  ["gzip", [0x1f, 0x8b]],
]

const deadlineMs = 60_000
const unpackedBytesMax = 256 * 1024 * 1024

export function compressionOf(bytes: Uint8Array): Compression | undefined {
  return magics.find(([, magic]) => magic.every((byte, index) => bytes[index] === byte))?.[0]
}

export async function decompress(bytes: Uint8Array<ArrayBuffer>, compression: Compression): Promise<Buffer> {
  switch (compression) {
    case "zstd":
      return Bun.zstdDecompressSync(bytes)
    case "gzip":
      return Buffer.from(Bun.gunzipSync(bytes))
    case "lz4":
    case "xz":
      return await runProgram([compression, "-dc"], {
        deadlineMs,
        stdin: bytes,
        stdoutBytesMax: unpackedBytesMax,
      })
  }
}
