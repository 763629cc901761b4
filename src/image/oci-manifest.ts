/**
 * Reads an image's manifest and configuration from a directory of the OCI layout, `blobs/sha256/HEX`. Both come from
 * strangers: their digests, sizes and types are checked before anything is believed. The layers themselves are read by
 * the unpacker alone.
 */
import { createHash } from "node:crypto"
import { constants } from "node:fs"
import { type FileHandle, open } from "node:fs/promises"
import { join } from "node:path"
import type { ImageConfig } from "@bhatti/contract/image-config"
import { z } from "zod"
import { errorCodeOf } from "../lib/error-code.ts"
import { parseJson } from "../lib/parse-json.ts"
import { imageConfigOf, OciConfig } from "./oci-config.ts"
import { refusal } from "./refusal.ts"

/** Registries refuse larger manifests. */
const documentBytesMax = 4 * 1024 * 1024
/** Docker makes at most 127. */
const layersMax = 512

export type Layer = {
  digest: string
  size: number
  /** The digest of the layer's tar archive. */
  diffId: string
  compression: "none" | "gzip" | "zstd"
}

export type LayeredImage = { digest: string; layers: Layer[]; config: ImageConfig }

const compressions: ReadonlyMap<string, Layer["compression"]> = new Map([
  ["application/vnd.oci.image.layer.v1.tar", "none"],
  ["application/vnd.oci.image.layer.v1.tar+gzip", "gzip"],
  ["application/vnd.oci.image.layer.v1.tar+zstd", "zstd"],
  ["application/vnd.docker.image.rootfs.diff.tar", "none"],
  ["application/vnd.docker.image.rootfs.diff.tar.gzip", "gzip"],
  ["application/vnd.docker.image.rootfs.diff.tar.zstd", "zstd"],
] as const)
const manifestTypes = new Set([
  "application/vnd.oci.image.manifest.v1+json",
  "application/vnd.docker.distribution.manifest.v2+json",
])
const indexTypes = new Set([
  "application/vnd.oci.image.index.v1+json",
  "application/vnd.docker.distribution.manifest.list.v2+json",
])
const configTypes = new Set([
  "application/vnd.oci.image.config.v1+json",
  "application/vnd.docker.container.image.v1+json",
])

const Blob = z.object({
  mediaType: z.string(),
  digest: z.string(),
  size: z.int().nonnegative(),
})
const Manifest = z.object({ config: Blob, layers: z.array(Blob) })

/** `digest` is that of a manifest for one platform, as `sha256:HEX`. */
export async function readLayeredImage(layout: string, digest: string): Promise<LayeredImage> {
  const document = parseJson((await readDocument(layout, digest)).toString("utf8"))
  refuseOtherKinds(document)
  const manifest = Manifest.safeParse(document).data
  if (manifest === undefined) throw refusal("bad_manifest", `the manifest ${digest} is not an image's`)
  if (manifest.layers.length > layersMax) {
    throw refusal(
      "too_many_layers",
      `the image has ${manifest.layers.length} layers, at most ${layersMax} are taken`,
    )
  }
  if (!configTypes.has(manifest.config.mediaType)) {
    throw refusal("not_an_image", `this holds ${manifest.config.mediaType}, which is no image of a system`)
  }
  const text = (await readDocument(layout, manifest.config.digest, manifest.config.size)).toString("utf8")
  const config = OciConfig.safeParse(parseJson(text)).data
  if (config === undefined) throw refusal("bad_config", "the image's configuration cannot be read")
  if (config.os !== "linux" || config.architecture !== "amd64") {
    throw refusal(
      "wrong_platform",
      `the image is for ${config.os}/${config.architecture}, sandboxes are linux/amd64`,
    )
  }
  const diffIds = config.rootfs.diff_ids
  if (diffIds.length !== manifest.layers.length) {
    throw refusal(
      "bad_manifest",
      `the image has ${manifest.layers.length} layers, and its configuration names ${diffIds.length}`,
    )
  }
  const layers = manifest.layers.map((layer, index) => checkedLayer(layer, diffIds[index] ?? ""))
  return { digest, layers, config: imageConfigOf(config) }
}

/** Refuses documents that a registry may also answer with, each with a reason of its own. */
function refuseOtherKinds(document: unknown): void {
  const kind = z
    .object({
      schemaVersion: z.number().optional(),
      mediaType: z.string().optional(),
      manifests: z.unknown().optional(),
    })
    .safeParse(document).data
  if (kind === undefined) throw refusal("bad_manifest", "the image's manifest is not JSON")
  if (kind.schemaVersion === 1) {
    throw refusal("schema_1", "the image has a manifest of the first kind, which names no configuration", {
      hint: "push it again with a current Docker, Podman or skopeo",
    })
  }
  if (indexTypes.has(kind.mediaType ?? "") || kind.manifests !== undefined) {
    throw refusal("nested_index", "the manifest of the platform is itself a list of manifests")
  }
  if (kind.mediaType !== undefined && !manifestTypes.has(kind.mediaType)) {
    throw refusal("bad_media_type", `a manifest of the type ${kind.mediaType} is not known here`)
  }
}

function checkedLayer({ mediaType, digest, size }: z.infer<typeof Blob>, diffId: string): Layer {
  if (/nondistributable|foreign/.test(mediaType)) {
    throw refusal(
      "foreign_layer",
      `the layer ${digest} is of the type ${mediaType}, whose bytes no registry has to hold`,
    )
  }
  const compression = compressions.get(mediaType)
  if (compression === undefined)
    throw refusal(
      "bad_media_type",
      `the layer ${digest} is of the type ${mediaType}, which is not known here`,
    )
  for (const one of [digest, diffId]) hexOf(one)
  return { digest, size, diffId, compression }
}

/** Returns the hexadecimal digits of a digest. */
export function hexOf(digest: string): string {
  const hex = /^sha256:([0-9a-f]{64})$/.exec(digest)?.[1]
  if (hex === undefined) throw refusal("bad_digest", `"${digest}" is not a digest of the form sha256:HEX`)
  return hex
}

async function readDocument(layout: string, digest: string, size?: number): Promise<Buffer> {
  const path = join(layout, "blobs", "sha256", hexOf(digest))
  await using file = await openBlob(path, digest)
  const about = await file.stat()
  if (!about.isFile()) throw refusal("missing_blob", `the blob ${digest} is not a file`)
  if (about.size > documentBytesMax)
    throw refusal("too_many_bytes", `the document ${digest} is longer than ${documentBytesMax} bytes`)
  if (size !== undefined && about.size !== size)
    throw refusal("wrong_size", `the document ${digest} has ${about.size} bytes and should have ${size}`)
  const bytes = await file.readFile()
  if (createHash("sha256").update(bytes).digest("hex") !== hexOf(digest))
    throw refusal("wrong_digest", `the document ${digest} has another digest`)
  return bytes
}

async function openBlob(path: string, digest: string): Promise<FileHandle> {
  try {
    return await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch (error) {
    if (["ENOENT", "ELOOP"].includes(errorCodeOf(error) ?? ""))
      throw refusal("missing_blob", `the blob ${digest} is missing`)
    throw error
  }
}
