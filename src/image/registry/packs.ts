/**
 * Makes layers of disks. A sandbox's becomes a disk of its own, committed like that of a pull; an image's leaves the
 * host in an archive, or for a registry.
 */

import { createHash } from "node:crypto"
import { join } from "node:path"
import type { AppError } from "@bhatti/contract/errors"
import type { ImageConfig } from "@bhatti/contract/image-config"
import { diskNameOf } from "../../lib/disk-names.ts"
import { readArchive } from "../archive.ts"
import { documentsOf } from "../layer-documents.ts"
import type { ImageManifest } from "../manifest.ts"
import { type DiskFile, type PackedLayer, packDisk } from "../pack.ts"
import { commitDisk, findMade, type MadeDisk } from "./commit-disk.ts"
import type { FetchSettings, Source } from "./fetch.ts"
import { archiveNameOf, archiveOf } from "./image-archive.ts"
import type { StillDisk } from "./pulls.ts"
import { pushLayer } from "./push.ts"
import { makeStaging, type Staging } from "./staging.ts"

export type PackSettings = {
  dataDir: string
  /** Why this host cannot push; undefined if it can. */
  trouble: AppError | undefined
  fetch: FetchSettings
  /** Newest first. */
  filesOf: (disk: StillDisk) => DiskFile[]
  uid: number
  /** Bytes that stay free on the file system. */
  freeBytes: number
}

type PackSource = { disk: StillDisk; diskMib: number }
type About = { config: ImageConfig } & Pick<ImageManifest, "initSystem" | "programs"> & {
    services: readonly NonNullable<ImageManifest["services"]>[number][]
  }
type Progress = {
  step: "fetching" | "unpacking"
  layers: { digest: string; bytes: number; total: number }[]
}
/** A finished image of this host. */
type Finished = { name: string; hash: string; diskMib: number; config: ImageConfig }
type LayerProgress = { step: "packing" | "pushing"; layers: Progress["layers"] }
type Packed = { diskName: string; manifestDigest: string; bytes: number } & AsyncDisposable
type Going = { staging: Staging; layer: PackedLayer; about: About }

export class Packs {
  readonly #settings: PackSettings
  readonly #going = new WeakMap<object, Going>()
  /** The last export of each owner, which the next one waits for. */
  readonly #exports = new Map<string, Promise<unknown>>()

  constructor(settings: PackSettings) {
    this.#settings = settings
  }

  async pack(
    source: PackSource,
    about: About,
    { origin, bytesMax, signal }: { origin: string; bytesMax: number; signal: AbortSignal },
  ): Promise<Packed> {
    const { dataDir, uid, freeBytes } = this.#settings
    await using undo = new AsyncDisposableStack()
    const staging = undo.use(await makeStaging(dataDir))
    const layer = await packDisk({
      files: this.#settings.filesOf(source.disk),
      diskMib: source.diskMib,
      isOfSandbox: true,
      directory: join(staging.path, "packed"),
      limits: { unpackedBytes: bytesMax, freeBytes },
      ...{ uid, signal },
    })
    const { manifestDigest } = documentsOf(layer, about.config)
    undo.move()
    const packed = {
      ...{ diskName: diskNameOf(origin, contentDigest(manifestDigest, about)), manifestDigest },
      bytes: layer.size,
      [Symbol.asyncDispose]: () => staging[Symbol.asyncDispose](),
    }
    this.#going.set(packed, { staging, layer, about })
    return packed
  }

  async make(
    packed: Packed,
    options: { onProgress: (progress: Progress) => void; bytesMax: number; signal: AbortSignal },
  ): Promise<MadeDisk> {
    const going = this.#going.get(packed)
    if (!going) throw new Error("the layer is gone")
    const { staging, layer, about } = going
    const { dataDir, uid, freeBytes } = this.#settings
    const { diskName } = packed
    const found = await findMade(dataDir, diskName)
    if (found) return found
    const { signal, bytesMax } = options
    const { digest, size: total } = layer
    const read = await readArchive({
      archive: Bun.file(layer.file).stream(),
      isTree: true,
      directory: join(staging.path, "disk"),
      // The archive's own headers are no files.
      limits: { compressedBytes: total, unpackedBytes: bytesMax, freeBytes },
      onProgress: (bytes) => options.onProgress({ step: "unpacking", layers: [{ digest, bytes, total }] }),
      ...{ uid, signal },
    })
    if (read.kind !== "disk") throw new Error("a layer was taken for an image's archive")
    signal.throwIfAborted()
    const { disk, sizeMib } = read.image
    await commitDisk({ dataDir, staging: staging.path, diskName, disk, sizeMib, ...about })
    const made = await findMade(dataDir, diskName)
    if (!made) throw new Error(`${diskName} was not committed`)
    return made
  }

  async *export(
    image: Finished,
    { owner, shownAs, signal }: { owner: string; shownAs: string; signal: AbortSignal },
  ): AsyncGenerator<Uint8Array> {
    const before = this.#exports.get(owner)
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#exports.set(owner, promise)
    try {
      await before
      await using staging = await makeStaging(this.#settings.dataDir)
      const layer = await this.#packFinished(image, staging, signal)
      for await (const bytes of archiveOf(layer, documentsOf(layer, image.config), archiveNameOf(shownAs))) {
        signal.throwIfAborted()
        yield bytes
      }
    } finally {
      resolve()
      if (this.#exports.get(owner) === promise) this.#exports.delete(owner)
    }
  }

  async push(
    image: Finished,
    to: Source,
    { onProgress, signal }: { onProgress: (progress: LayerProgress) => void; signal: AbortSignal },
  ): Promise<{ digest: string }> {
    if (this.#settings.trouble) throw this.#settings.trouble
    await using staging = await makeStaging(this.#settings.dataDir)
    onProgress({ step: "packing", layers: [] })
    const layer = await this.#packFinished(image, staging, signal)
    const documents = documentsOf(layer, image.config)
    const digest = await pushLayer(
      this.#settings.fetch,
      to,
      { layer, documents },
      { onProgress: (layers) => onProgress({ step: "pushing", layers }), signal },
    )
    return { digest }
  }

  async #packFinished(image: Finished, staging: Staging, signal: AbortSignal): Promise<PackedLayer> {
    const { dataDir, uid, freeBytes } = this.#settings
    const path = join(dataDir, "images", image.name, `${image.hash}.raw`)
    return await packDisk({
      files: [{ path, format: "raw" }],
      diskMib: image.diskMib,
      isOfSandbox: false,
      directory: join(staging.path, "packed"),
      limits: { freeBytes },
      ...{ uid, signal },
    })
  }
}

/** A manifest says less than our own about an image's sandboxes. */
function contentDigest(manifestDigest: string, { services, initSystem, programs }: About): string {
  const more = JSON.stringify([services, initSystem ?? false, programs ?? null])
  return `sha256:${createHash("sha256").update(`${manifestDigest} ${more}`).digest("hex")}`
}
