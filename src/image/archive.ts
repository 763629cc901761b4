/**
 * Reads an archive that somebody brings: the tree of a root file system, which becomes a disk at once, or an image with
 * its layers, as `docker save` and the OCI layout have it, which becomes a layout. The unpacker tells them apart by
 * their contents.
 */
import { createHash } from "node:crypto"
import { constants } from "node:fs"
import { type FileHandle, lstat, mkdir, open, rename } from "node:fs/promises"
import { join } from "node:path"
import { z } from "zod"
import { parseJson } from "../lib/parse-json.ts"
import { hexOf, type Layer } from "./oci-manifest.ts"
import { refusal } from "./refusal.ts"
import { resultOf, type UnpackedImage } from "./unpack.ts"
import { emptyDirectory, runUnpacker, type UnpackLimits, unpackLimits } from "./unpacker.ts"

export type ArchiveOptions = {
  /** May be compressed with gzip or zstd. */
  archive: ReadableStream<Uint8Array>
  /** It is the tree of a root file system, whatever is in it. */
  isTree?: boolean
  /** For this work alone, and emptied first. */
  directory: string
  /** The user id that the unpacker runs as if the caller is root. */
  uid: number
  limits?: Partial<UnpackLimits>
  /** Called with the number of bytes that have been read. */
  onProgress?: (bytes: number) => void
  signal?: AbortSignal
}

export type ReadArchive =
  /** `id` is the digest of the archive, uncompressed. */
  | { kind: "disk"; id: string; image: Omit<UnpackedImage, "config"> }
  /** A layout for `unpackImage`, which has to be given another directory. `names` are those that the archive says. */
  | { kind: "layers"; layout: string; manifestDigest: string; names: string[] }

/** Throws an error with a `reason` if it is refused; the directory is empty then. */
export async function readArchive(options: ArchiveOptions): Promise<ReadArchive> {
  const { directory, archive, isTree, uid, signal, onProgress } = options
  const result = await runUnpacker({
    directory,
    uid,
    signal,
    limits: { ...unpackLimits, ...options.limits },
    from: { archive, isTree },
    onProgress: ({ bytes }) => onProgress?.(bytes),
  })
  if (result.type === "done") {
    return { kind: "disk", id: result.id, image: { ...resultOf(result), disk: join(directory, "disk.raw") } }
  }
  try {
    const files = new Map(
      result.files.map(({ name, number }) => [name, join(directory, "content", `${number}`)]),
    )
    const layout = join(directory, "layout")
    await mkdir(join(layout, "blobs", "sha256"), { recursive: true })
    const read = files.has("oci-layout") ? await takeLayout(files, layout) : await takeSaved(files, layout)
    await emptyDirectory(directory, "layout")
    return { kind: "layers", layout, ...read }
  } catch (error) {
    await emptyDirectory(directory)
    throw error
  }
}

type Files = ReadonlyMap<string, string>
type Found = { manifestDigest: string; names: string[] }

const documentBytesMax = 4 * 1024 * 1024
/** An index may name an index, once more: a save of an image for several platforms. */
const indexDepthMax = 3
const nameAnnotation = "org.opencontainers.image.ref.name"
const fullNameAnnotation = "io.containerd.image.name"

const Descriptor = z.object({
  mediaType: z.string().optional(),
  digest: z.string(),
  platform: z.object({ os: z.string(), architecture: z.string() }).optional(),
  annotations: z.record(z.string(), z.string()).optional(),
})
const Index = z.object({ manifests: z.array(Descriptor).max(1000) })

/** Its blobs have their names already; their digests are checked when they are unpacked. */
async function takeLayout(files: Files, layout: string): Promise<Found> {
  for (const [name, path] of files) {
    const hex = /^blobs\/sha256\/([0-9a-f]{64})$/.exec(name)?.[1]
    if (hex !== undefined && (await isFile(path))) await rename(path, join(layout, "blobs", "sha256", hex))
  }
  const names: string[] = []
  let text = await readText(files.get("index.json") ?? "")
  for (let depth = 0; depth < indexDepthMax; depth++) {
    const index = Index.safeParse(parseJson(text)).data
    if (index === undefined) throw refusal("bad_archive", "the archive's index cannot be read")
    const manifest = choose(index.manifests)
    for (const name of [fullNameAnnotation, nameAnnotation])
      if (manifest.annotations?.[name] !== undefined) names.push(manifest.annotations[name])
    if (!/index|manifest\.list/.test(manifest.mediaType ?? ""))
      return { manifestDigest: manifest.digest, names }
    text = await readText(join(layout, "blobs", "sha256", hexOf(manifest.digest)))
  }
  throw refusal("nested_index", "the archive's index names indexes without end")
}

function choose(manifests: z.infer<typeof Descriptor>[]): z.infer<typeof Descriptor> {
  // Statements about an image are kept beside it, as images of an unknown platform.
  const images = manifests.filter(({ platform }) => platform?.os !== "unknown")
  const ours = images.filter(
    ({ platform }) =>
      platform === undefined || (platform.os === "linux" && platform.architecture === "amd64"),
  )
  const [first, ...others] = ours
  if (first === undefined) {
    const platforms = images.map(({ platform }) => `${platform?.os}/${platform?.architecture}`)
    throw refusal(
      "wrong_platform",
      `the archive has no image for linux/amd64, only for ${platforms.join(", ")}`,
    )
  }
  if (others.some(({ digest }) => digest !== first.digest)) {
    throw refusal("several_images", `the archive has ${ours.length} images`, {
      hint: "save one image at a time",
    })
  }
  return first
}

const Saved = z.array(
  z.object({ Config: z.string(), RepoTags: z.array(z.string()).nullish(), Layers: z.array(z.string()) }),
)
const SavedConfig = z.object({ rootfs: z.object({ diff_ids: z.array(z.string()) }) })

/** Older saves have no manifest: it is made of the configuration and the layers. */
async function takeSaved(files: Files, layout: string): Promise<Found> {
  const saved = Saved.safeParse(parseJson(await readText(files.get("manifest.json") ?? ""))).data
  const [image, ...others] = saved ?? []
  if (image === undefined) throw refusal("bad_archive", "the archive's manifest.json cannot be read")
  if (others.length > 0) {
    throw refusal("several_images", `the archive has ${others.length + 1} images`, {
      hint: "save one image at a time",
    })
  }
  const text = await readText(files.get(image.Config) ?? "")
  const diffIds = SavedConfig.safeParse(parseJson(text)).data?.rootfs.diff_ids ?? []
  if (diffIds.length !== image.Layers.length)
    throw refusal("bad_archive", "the archive's manifest.json and its configuration name different layers")
  // A layer that occurs twice is one file.
  const taken = new Map<string, object>()
  const layers: object[] = []
  for (const [index, name] of image.Layers.entries()) {
    const path = files.get(name) ?? ""
    const layer = taken.get(path) ?? (await takeLayer(path, diffIds[index] ?? "", layout))
    taken.set(path, layer)
    layers.push(layer)
  }
  const manifest = {
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.manifest.v1+json",
    config: { mediaType: "application/vnd.oci.image.config.v1+json", ...(await putBlob(text, layout)) },
    layers,
  }
  const { digest } = await putBlob(JSON.stringify(manifest), layout)
  return { manifestDigest: digest, names: image.RepoTags ?? [] }
}

async function takeLayer(path: string, diffId: string, layout: string): Promise<object> {
  if (path === "" || !(await isFile(path))) throw refusal("missing_blob", "a layer of the archive is missing")
  await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW)
  const { size } = await file.stat()
  const compression = await compressionOf(file)
  const digest = compression === "none" ? diffId : await digestOf(file)
  await rename(path, join(layout, "blobs", "sha256", hexOf(digest)))
  const suffix = compression === "none" ? "" : `+${compression}`
  return { mediaType: `application/vnd.oci.image.layer.v1.tar${suffix}`, digest, size }
}

async function compressionOf(file: FileHandle): Promise<Layer["compression"]> {
  const head = Buffer.alloc(4)
  await file.read(head, 0, 4, 0)
  if (head.readUInt16BE(0) === 0x1f8b) return "gzip"
  return head.readUInt32BE(0) === 0x28b52ffd ? "zstd" : "none"
}

async function digestOf(file: FileHandle): Promise<string> {
  const hash = createHash("sha256")
  for await (const chunk of file.createReadStream({ start: 0, autoClose: false })) hash.update(chunk)
  return `sha256:${hash.digest("hex")}`
}

async function putBlob(text: string, layout: string): Promise<{ digest: string; size: number }> {
  const digest = `sha256:${createHash("sha256").update(text).digest("hex")}`
  await Bun.write(join(layout, "blobs", "sha256", hexOf(digest)), text)
  return { digest, size: Buffer.byteLength(text) }
}

async function isFile(path: string): Promise<boolean> {
  const about = await lstat(path).catch(() => undefined)
  return about?.isFile() === true
}

async function readText(path: string): Promise<string> {
  if (path === "" || !(await isFile(path)))
    throw refusal("missing_blob", "a document of the archive is missing")
  await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW)
  if ((await file.stat()).size > documentBytesMax)
    throw refusal("too_many_bytes", `a document of the archive is longer than ${documentBytesMax} bytes`)
  return (await file.readFile()).toString("utf8")
}
