/** Writes images in the OCI layout, whole ones and broken ones. */
import { createHash } from "node:crypto"
import { mkdir, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { gzipSync, zstdCompressSync } from "node:zlib"

export const layerType = "application/vnd.oci.image.layer.v1.tar"
const configType = "application/vnd.oci.image.config.v1+json"
export const manifestType = "application/vnd.oci.image.manifest.v1+json"

export type WrittenBlob = { mediaType: string; digest: string; size: number }

export function digestOf(bytes: Uint8Array): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`
}

export async function writeBlob(layout: string, bytes: Uint8Array, mediaType = ""): Promise<WrittenBlob> {
  const digest = digestOf(bytes)
  const directory = join(layout, "blobs", "sha256")
  await mkdir(directory, { recursive: true })
  await writeFile(join(directory, digest.slice("sha256:".length)), bytes)
  return { mediaType, digest, size: bytes.length }
}

export function blobPath(layout: string, digest: string): string {
  return join(layout, "blobs", "sha256", digest.slice("sha256:".length))
}

export type LayeredImageOptions = {
  compression?: "none" | "gzip" | "zstd"
  /** Changes to the documents before they are written. */
  config?: Record<string, unknown>
  manifest?: (manifest: { layers: WrittenBlob[] } & Record<string, unknown>) => unknown
  diffIds?: string[]
}

/** Returns the manifest's digest. `layers` are tar archives. */
export async function writeImage(
  layout: string,
  layers: Uint8Array[],
  options: LayeredImageOptions = {},
): Promise<string> {
  const { compression = "none" } = options
  const compress = { none: (bytes: Uint8Array) => bytes, gzip: gzipSync, zstd: zstdCompressSync }[compression]
  const mediaType = compression === "none" ? layerType : `${layerType}+${compression}`
  const blobs: WrittenBlob[] = []
  for (const layer of layers) blobs.push(await writeBlob(layout, compress(layer), mediaType))
  const config = await writeBlob(
    layout,
    Buffer.from(
      JSON.stringify({
        architecture: "amd64",
        os: "linux",
        rootfs: { type: "layers", diff_ids: options.diffIds ?? layers.map(digestOf) },
        ...options.config,
      }),
    ),
    configType,
  )
  const manifest = { schemaVersion: 2, mediaType: manifestType, config, layers: blobs }
  const document = options.manifest?.(manifest) ?? manifest
  return (await writeBlob(layout, Buffer.from(JSON.stringify(document)))).digest
}
