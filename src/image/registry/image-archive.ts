/**
 * Writes an image as an archive of both kinds at once: with the documents of the OCI layout, and with the list that any
 * version of `docker load` reads. Its layer is in it once.
 */

import { open } from "node:fs/promises"
import { type LayerDocuments, manifestMediaType } from "../layer-documents.ts"
import { hexOf } from "../oci-manifest.ts"

type Layer = { file: string; digest: string; size: number }

const blockBytes = 512
const pieceBytes = 1024 * 1024
/** The largest number that the field has room for in octal digits. */
const octalMax = 8 ** 11 - 1

/** `name` is one that programs may give the image; null: none fits their rules. */
export async function* archiveOf(
  layer: Layer,
  documents: LayerDocuments,
  name: string | null,
): AsyncGenerator<Uint8Array> {
  for (const [path, bytes] of Object.entries(textsOf(layer, documents, name)))
    yield Buffer.concat([headerOf(path, bytes.length), bytes, paddingOf(bytes.length)])
  yield headerOf(blobPath(layer.digest), layer.size)
  await using file = await open(layer.file, "r")
  for (let at = 0; at < layer.size; ) {
    const { buffer, bytesRead } = await file.read(Buffer.allocUnsafe(pieceBytes), 0, pieceBytes, at)
    if (bytesRead === 0) throw new Error(`${layer.file} is shorter than its ${layer.size} bytes`)
    yield buffer.subarray(0, bytesRead)
    at += bytesRead
  }
  yield Buffer.concat([paddingOf(layer.size), Buffer.alloc(2 * blockBytes)])
}

/** A header of a file, as POSIX has it; in GNU's form for a size that has no room. */
function headerOf(path: string, size: number): Buffer {
  const header = Buffer.alloc(blockBytes)
  const put = (at: number, text: string) => header.write(text, at, "latin1")
  put(0, path)
  put(100, "0000644")
  for (const at of [108, 116]) put(at, "0000000")
  if (size <= octalMax) put(124, size.toString(8).padStart(11, "0"))
  else {
    header.writeBigUInt64BE(BigInt(size), 128)
    header[124] = 0x80
  }
  put(136, "00000000000")
  put(148, " ".repeat(8))
  put(156, "0")
  put(257, "ustar")
  put(263, "00")
  const sum = header.reduce((total, byte) => total + byte, 0)
  put(148, `${sum.toString(8).padStart(6, "0")}\0 `)
  return header
}

function paddingOf(size: number): Buffer {
  return Buffer.alloc((blockBytes - (size % blockBytes)) % blockBytes)
}

/** The files of the archive but for the layer, by path. */
export function textsOf(
  layer: Pick<Layer, "digest">,
  { config, configDigest, manifest, manifestDigest }: LayerDocuments,
  name: string | null,
): Record<string, Buffer> {
  const annotations = {
    "org.opencontainers.image.ref.name": tagOf(name),
    ...(name !== null && {
      "io.containerd.image.name": name.includes("/") ? name : `docker.io/library/${name}`,
    }),
  }
  const entry = {
    ...{ mediaType: manifestMediaType, digest: manifestDigest, size: manifest.length },
    ...{ annotations, platform: { os: "linux", architecture: "amd64" } },
  }
  const saved = {
    Config: blobPath(configDigest),
    RepoTags: name === null ? null : [name],
    Layers: [blobPath(layer.digest)],
  }
  return {
    "oci-layout": json({ imageLayoutVersion: "1.0.0" }),
    "index.json": json({ schemaVersion: 2, manifests: [entry] }),
    "manifest.json": json([saved]),
    [blobPath(configDigest)]: config,
    [blobPath(manifestDigest)]: manifest,
  }
}

/** As programs accept it, with a tag. */
export function archiveNameOf(name: string): string | null {
  const part = "[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*"
  const host = "(?:[a-zA-Z0-9.-]+(?::\\d+)?/)?"
  if (new RegExp(`^${host}${part}(?:/${part})*$`).test(name)) return `${name}:latest`
  return new RegExp(`^${host}${part}(?:/${part})*:[\\w][\\w.-]{0,127}$`).test(name) ? name : null
}

export const layoutTag = "image"

function tagOf(name: string | null): string {
  return name === null ? layoutTag : name.slice(name.lastIndexOf(":") + 1)
}

export function blobPath(digest: string): string {
  return `blobs/sha256/${hexOf(digest)}`
}

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value))
}
