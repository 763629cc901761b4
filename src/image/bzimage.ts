/**
 * Extracts the uncompressed kernel, a PVH-bootable ELF file, from a bzImage: QEMU starts it directly, so no guest
 * spends time on decompression. The header's layout is in the kernel's Documentation/arch/x86/boot.rst.
 */
import { AppError } from "@bhatti/contract/errors"
import { type Compression, compressionOf, decompress } from "./compression.ts"

export type Payload = {
  compression: Compression
  packed: Uint8Array<ArrayBuffer>
  unpackedBytes: number
}

const sectorBytes = 512
const setupSectorsAt = 0x1f1
const headerMagicAt = 0x202
const protocolVersionAt = 0x206
const payloadOffsetAt = 0x248
const payloadLengthAt = 0x24c
/** payload_offset and payload_length came with this version of the boot protocol. */
const protocolVersionMin = 0x0208
const elfMagic = Buffer.from([0x7f, 0x45, 0x4c, 0x46])

export function locatePayload(image: Buffer<ArrayBuffer>): Payload {
  if (
    image.length < payloadLengthAt + 4 ||
    image.toString("latin1", headerMagicAt, headerMagicAt + 4) !== "HdrS"
  ) {
    throw new AppError("invalid", "the kernel is not a bzImage")
  }
  if (image.readUInt16LE(protocolVersionAt) < protocolVersionMin) {
    throw new AppError("invalid", "the kernel's boot protocol is too old to find its payload")
  }
  const start = (image.readUInt8(setupSectorsAt) + 1) * sectorBytes + image.readUInt32LE(payloadOffsetAt)
  const end = start + image.readUInt32LE(payloadLengthAt)
  if (end > image.length || end - start < 8) {
    throw new AppError("invalid", "the kernel image is cut short")
  }
  const compression = compressionOf(image.subarray(start, end))
  if (compression === undefined) {
    throw new AppError("invalid", "the kernel's payload has an unknown compression")
  }
  // The last four bytes are the unpacked size, which belongs to the compressed stream only for gzip.
  const packedEnd = compression === "gzip" ? end : end - 4
  return { compression, packed: image.subarray(start, packedEnd), unpackedBytes: image.readUInt32LE(end - 4) }
}

export async function extractVmlinux(image: Buffer<ArrayBuffer>): Promise<Buffer> {
  const { compression, packed, unpackedBytes } = locatePayload(image)
  const kernel = await decompress(packed, compression)
  if (kernel.length !== unpackedBytes) {
    throw new AppError(
      "invalid",
      `the kernel unpacked to ${kernel.length} bytes, its header says ${unpackedBytes}`,
    )
  }
  if (!kernel.subarray(0, elfMagic.length).equals(elfMagic)) {
    throw new AppError("invalid", "the unpacked kernel is not an ELF file")
  }
  return kernel
}
