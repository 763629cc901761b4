/**
 * Makes a disk of an image of others: the layers of an OCI layout, merged, as one ext4 file. The work is done by the
 * unpacker (`unpack/`), which has no rights on the host. The same manifest gives the same bytes.
 */
import { join } from "node:path"
import type { ImageConfig } from "@bhatti/contract/image-config"
import { hexOf, readLayeredImage } from "./oci-manifest.ts"
import { refusal } from "./refusal.ts"
import { runUnpacker, type UnpackLimits, unpackLimits } from "./unpacker.ts"

export type UnpackOptions = {
  /** A directory of the OCI layout; only `blobs/sha256` is read. */
  layout: string
  /** That of a manifest for one platform. */
  manifestDigest: string
  /**
   * A directory for this work alone, which is emptied first: a retry cleans up after a process that was killed. It
   * needs room for the image's files twice.
   */
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
  /** Files, directories and so on, each once, whatever the number of its names. */
  entries: number
  /** Sockets and other kinds of files that a disk cannot hold. */
  leftOut: number
  config: ImageConfig
}

/** Throws an error with a `reason` if the image is refused; the directory is empty then. */
export async function unpackImage(options: UnpackOptions): Promise<UnpackedImage> {
  const limits = { ...unpackLimits, ...options.limits }
  const { layers, config } = await readLayeredImage(options.layout, options.manifestDigest)
  const total = layers.reduce((sum, { size }) => sum + size, 0)
  if (total > limits.compressedBytes) {
    throw refusal(
      "too_many_bytes",
      `the image has ${total} compressed bytes, at most ${limits.compressedBytes} are taken`,
    )
  }
  const { directory, uid, signal, onProgress } = options
  const result = await runUnpacker({
    directory,
    uid,
    limits,
    signal,
    from: { layout: options.layout, layers, id: hexOf(options.manifestDigest).slice(0, 32) },
    onProgress: ({ layer, bytes }) => {
      const about = layers[layer]
      if (about !== undefined) onProgress?.({ layer: about.digest, bytes, total: about.size })
    },
  })
  if (result.type !== "done") throw refusal("bad_archive", "the image holds no file system")
  return { ...resultOf(result), disk: join(directory, "disk.raw"), config }
}

export function resultOf(result: { bytes: number; entries: number; left_out: number; disk_bytes: number }) {
  const { bytes, entries, left_out: leftOut, disk_bytes: diskBytes } = result
  return { bytes, entries, leftOut, sizeMib: Math.ceil(diskBytes / 1024 ** 2) }
}
