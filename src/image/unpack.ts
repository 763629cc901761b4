/**
 * Makes a disk of an image of others: the layers of an OCI layout, merged, as one ext4 file. The work is done by the
 * unpacker (`unpack/`), which has no rights on the host.
 */
import { AppError } from "@bhatti/contract/errors"
import type { ImageConfig } from "@bhatti/contract/image-config"
import { readLayeredImage } from "./oci-manifest.ts"
import { refusal } from "./refusal.ts"

export type UnpackLimits = {
  /** Limit on all blobs together. */
  compressedBytes: number
  /** Limit on all files of all layers, also on those that a later layer removes. */
  unpackedBytes: number
  /** Limit on all layers together. */
  entries: number
  /** Directories on the way to a file. */
  depth: number
  /** Unpacked to compressed bytes of a layer, once it is larger than 1 GiB. */
  ratio: number
  /** Bytes that stay free on the file system of the directory. */
  freeBytes: number
  timeoutMs: number
}

export const unpackLimits: UnpackLimits = {
  compressedBytes: 16 * 1024 ** 3,
  unpackedBytes: 32 * 1024 ** 3,
  entries: 1_000_000,
  depth: 128,
  ratio: 500,
  freeBytes: 1024 ** 3,
  timeoutMs: 1_800_000,
}

export type UnpackOptions = {
  /** A directory of the OCI layout; only `blobs/sha256` is read. */
  layout: string
  /** That of a manifest for one platform. */
  manifestDigest: string
  /** A directory for this work alone, which is emptied first: a retry cleans up after a process that was killed. */
  directory: string
  /** The user id that the unpacker runs as if the caller is root. */
  uid: number
  limits?: Partial<UnpackLimits>
  onProgress?: (progress: UnpackProgress) => void
  signal?: AbortSignal
}

/** `bytes` of `total` of the layer's blob have been read. */
export type UnpackProgress = { layer: string; bytes: number; total: number }

export type UnpackedImage = {
  /** The raw disk, the only file in the directory. */
  disk: string
  sizeMib: number
  /** The length of all files together. */
  bytes: number
  entries: number
  /** Sockets and other kinds of files that a disk cannot hold. */
  leftOut: number
  config: ImageConfig
}

/** Throws an error with a `reason` if the image is refused. */
export async function unpackImage(options: UnpackOptions): Promise<UnpackedImage> {
  const limits = { ...unpackLimits, ...options.limits }
  const image = await readLayeredImage(options.layout, options.manifestDigest)
  const total = image.layers.reduce((sum, { size }) => sum + size, 0)
  if (total > limits.compressedBytes) {
    throw refusal(
      "too_many_bytes",
      `the image has ${total} compressed bytes, at most ${limits.compressedBytes} are taken`,
    )
  }
  throw new AppError("unavailable", "this build has no unpacker of layers", { retryable: false })
}
