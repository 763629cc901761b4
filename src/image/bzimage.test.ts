/** Payload extraction on images made here, in every compression that this host has a program for. */
import { expect, test } from "bun:test"
import { AppError } from "@bhatti/contract/errors"
import { extractVmlinux, locatePayload } from "./bzimage.ts"
import type { Compression } from "./compression.ts"

const kernel = Buffer.concat([Buffer.from([0x7f, 0x45, 0x4c, 0x46]), Buffer.alloc(50_000, "kernel")])

/** A bzImage as the kernel's build makes it: setup sectors, then code, the payload somewhere in it, more code. */
function bzImage(payload: Buffer, unpackedBytes = kernel.length): Buffer<ArrayBuffer> {
  const [setupSectors, payloadOffset] = [3, 716]
  const size = Buffer.alloc(4)
  size.writeUInt32LE(unpackedBytes)
  // gzip ends with that number by itself.
  const whole = payload[0] === 0x1f ? payload : Buffer.concat([payload, size])
  const header = Buffer.alloc((setupSectors + 1) * 512 + payloadOffset)
  header.writeUInt8(setupSectors, 0x1f1)
  header.write("HdrS", 0x202)
  header.writeUInt16LE(0x020f, 0x206)
  header.writeUInt32LE(payloadOffset, 0x248)
  header.writeUInt32LE(whole.length, 0x24c)
  return Buffer.concat([header, whole, Buffer.alloc(4096, 0xcc)])
}

const compressors: Record<Compression, (() => Buffer) | undefined> = {
  gzip: () => Buffer.from(Bun.gzipSync(Uint8Array.from(kernel))),
  zstd: () => Bun.zstdCompressSync(kernel),
  lz4: compressBy(["lz4", "-l", "-c"]),
  xz: compressBy(["xz", "-c"]),
}

function compressBy(command: [string, ...string[]]): (() => Buffer) | undefined {
  return Bun.which(command[0]) === null ? undefined : () => Bun.spawnSync(command, { stdin: kernel }).stdout
}

for (const [compression, compress] of Object.entries(compressors)) {
  test.skipIf(compress === undefined)(`the kernel comes out of a ${compression} payload`, async () => {
    const image = bzImage(compress?.() ?? Buffer.alloc(0))
    expect(locatePayload(image).compression).toBe(compression as Compression)
    expect((await extractVmlinux(image)).equals(kernel)).toBe(true)
  })
}

test("what is not a whole bzImage is refused", () => {
  const image = bzImage(Bun.zstdCompressSync(kernel))
  expect(() => locatePayload(Buffer.alloc(10))).toThrow(AppError)
  expect(() => locatePayload(Buffer.alloc(100_000))).toThrow(AppError)
  expect(() => locatePayload(image.subarray(0, 2780))).toThrow(AppError)
  expect(() => locatePayload(bzImage(Buffer.from("no known magic number")))).toThrow(AppError)
})

test("a payload of another size than its header says, or that is no ELF file, is refused", async () => {
  expect(extractVmlinux(bzImage(Bun.zstdCompressSync(kernel), 7))).rejects.toThrow(AppError)
  const text = Buffer.alloc(50_000, "text")
  expect(extractVmlinux(bzImage(Bun.zstdCompressSync(text), text.length))).rejects.toThrow(AppError)
})
