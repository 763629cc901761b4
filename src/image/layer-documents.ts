/** The documents of an image with one layer: its configuration and its manifest, after the OCI specification. */
import { createHash } from "node:crypto"
import type { ImageConfig } from "@bhatti/contract/image-config"
import { ociConfigOf } from "./oci-config.ts"

export type LayerDocuments = {
  config: Buffer
  configDigest: string
  manifest: Buffer
  manifestDigest: string
}

export const manifestMediaType = "application/vnd.oci.image.manifest.v1+json"

/** The layer is not compressed, so that its digest is also that of its content. */
export function documentsOf(layer: { digest: string; size: number }, about: ImageConfig): LayerDocuments {
  const config = Buffer.from(JSON.stringify(ociConfigOf(about, [layer.digest])))
  const configDigest = digestOf(config)
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: manifestMediaType,
      config: {
        mediaType: "application/vnd.oci.image.config.v1+json",
        digest: configDigest,
        size: config.length,
      },
      layers: [
        {
          mediaType: "application/vnd.oci.image.layer.v1.tar",
          digest: layer.digest,
          size: layer.size,
        },
      ],
    }),
  )
  return { config, configDigest, manifest, manifestDigest: digestOf(manifest) }
}

function digestOf(bytes: Buffer): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`
}
