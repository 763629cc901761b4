/** Makes images of sandboxes' disks: a layer of the tree, then a disk of its own, committed like that of a pull. */

import { createHash } from "node:crypto"
import { join } from "node:path"
import type { ImageConfig } from "@bhatti/contract/image-config"
import { diskNameOf } from "../../lib/disk-names.ts"
import { readArchive } from "../archive.ts"
import { documentsOf } from "../layer-documents.ts"
import type { ImageManifest } from "../manifest.ts"
import { type DiskFile, type PackedLayer, packDisk } from "../pack.ts"
import { commitDisk, findMade, type MadeDisk } from "./commit-disk.ts"
import type { StillDisk } from "./pulls.ts"
import { makeStaging, type Staging } from "./staging.ts"

export type PackSettings = {
  dataDir: string
  /** Newest first. */
  filesOf: (disk: StillDisk) => DiskFile[]
  uid: number
  /** Bytes that stay free on the file system. */
  freeBytes: number
}

type Source = { disk: StillDisk; diskMib: number }
type About = { config: ImageConfig } & Pick<ImageManifest, "initSystem" | "programs"> & {
    services: readonly NonNullable<ImageManifest["services"]>[number][]
  }
type Progress = {
  step: "fetching" | "unpacking"
  layers: { digest: string; bytes: number; total: number }[]
}
type Packed = { diskName: string; manifestDigest: string; bytes: number } & AsyncDisposable
type Going = { staging: Staging; layer: PackedLayer; about: About }

export class Packs {
  readonly #settings: PackSettings
  readonly #going = new WeakMap<object, Going>()

  constructor(settings: PackSettings) {
    this.#settings = settings
  }

  async pack(
    source: Source,
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
}

/** A manifest says less than our own about an image's sandboxes. */
function contentDigest(manifestDigest: string, { services, initSystem, programs }: About): string {
  const more = JSON.stringify([services, initSystem ?? false, programs ?? null])
  return `sha256:${createHash("sha256").update(`${manifestDigest} ${more}`).digest("hex")}`
}
