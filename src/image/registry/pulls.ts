/**
 * Makes disks of images in registries: resolve, fetch with skopeo, check and keep the layers, unpack, commit. Calls for
 * the same disk share one such work, which ends when the last of them has left.
 */

import { renameSync } from "node:fs"
import { chmod, mkdir, stat, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import type { ImageConfig } from "@bhatti/contract/image-config"
import { diskNameOf, isDiskName } from "../../lib/disk-names.ts"
import { unlessMissing } from "../../lib/missing-files.ts"
import { removeTree } from "../../lib/remove-tree.ts"
import { imageNames, readImage } from "../artifacts.ts"
import { hexOf } from "../oci-manifest.ts"
import type { UnpackedImage, UnpackOptions } from "../unpack.ts"
import { unpackLimits } from "../unpacker.ts"
import { type Archive, Archives, type Content } from "./archives.ts"
import { Blobs } from "./blobs.ts"
import { commitDisk, findMade, type MadeDisk as Made } from "./commit-disk.ts"
import { type FetchSettings, fetchDocument, fetchLayers, type Source } from "./fetch.ts"
import { endProgramsOf } from "./left-programs.ts"
import type { LayerState } from "./progress.ts"
import { type Resolved, resolve } from "./resolve.ts"
import { SharedWork } from "./shared-work.ts"
import { makeStaging, type Staging, tasksDirectory } from "./staging.ts"

export type PullSettings = FetchSettings & {
  /** Why this host cannot pull; undefined if it can. */
  trouble: AppError | undefined
  unpack: (options: UnpackOptions) => Promise<UnpackedImage>
  /** Writes one raw disk of a layered one. */
  flatten: (disk: StillDisk, to: string, options: { signal: AbortSignal }) => Promise<void>
  /** User ids that nothing but fetches runs with. */
  fetchUids: readonly number[]
  unpackUid: number
  /** Limit on an image's files. */
  imageBytesMax: number
  /** Limit on the layers that are kept. */
  layersBytesMax: number
}

export type StillDisk = {
  template: { id: string; diskMib: number; baseDiskPath: string; diskPath: string }
  copy: { id: string; isDraft: boolean } | null
}
type About = { config: ImageConfig; programs?: { start: string; ready: string } | undefined }
type Asked = Source & { digest: string | null; platform: string }
type Pull = { resolved: Resolved & { diskName: string }; manifest: Buffer }
type Opened = { diskName: string; manifestDigest: string }
type OpenedArchive = Opened & { content: Content }
type Progress = { step: "fetching" | "unpacking"; layers: LayerState[] }
type Options = { onProgress: (progress: Progress) => void; signal: AbortSignal }
/** With a limit on the image's files. */
type Bounded = Options & { bytesMax: number }

export class Pulls {
  readonly #settings: PullSettings
  readonly #blobs: Blobs
  readonly #archives: Archives
  readonly #received = new Map<string, Archive>()
  readonly #work = new SharedWork<Progress, Made>()
  /** The limits of works that have failed. */
  readonly #limits = new WeakMap<AppError, number>()

  constructor(settings: PullSettings) {
    this.#settings = settings
    const { dataDir, unpackUid: uid, imageBytesMax: bytesMax, freeBytes } = settings
    this.#archives = new Archives({ dataDir, uid, bytesMax, freeBytes })
    this.#blobs = new Blobs(join(settings.dataDir, "registry", "blobs"))
  }

  async resolve(asked: Asked, signal: AbortSignal): Promise<Pull> {
    if (this.#settings.trouble) throw this.#settings.trouble
    const { digest: pinned, platform } = asked
    const resolved = await resolve((digest) => fetchDocument(this.#settings, asked, digest, signal), {
      pinned,
      platform,
    })
    return {
      resolved: { ...resolved, diskName: diskNameOf(asked.host, resolved.manifestDigest) },
      manifest: resolved.manifest,
    }
  }

  async find(diskName: string): Promise<Made | undefined> {
    return await findMade(this.#settings.dataDir, diskName)
  }

  async make(asked: Asked, { resolved, manifest }: Pull, options: Bounded): Promise<Made> {
    const { bytesMax } = options
    for (;;) {
      const found = await this.find(resolved.diskName)
      if (found) return found
      try {
        return await this.#work.join(resolved.diskName, options, (shared) =>
          this.#fetchAndUnpack(asked, { resolved, manifest }, { ...shared, bytesMax }).catch(
            (error: unknown) => {
              if (error instanceof AppError) this.#limits.set(error, bytesMax)
              throw error
            },
          ),
        )
      } catch (error) {
        // It may have been begun by a caller who may take less.
        const isOthersLimit =
          error instanceof AppError &&
          error.reason === "too_many_bytes" &&
          (this.#limits.get(error) ?? bytesMax) < Math.min(bytesMax, this.#settings.imageBytesMax)
        if (!isOthersLimit) throw error
      }
    }
  }

  async receive(bytes: AsyncIterable<Uint8Array>, options: { bytesMax: number }): Promise<Archive> {
    if (this.#settings.trouble) throw this.#settings.trouble
    const archive = await this.#archives.receive(bytes, options)
    this.#received.set(archive.id, archive)
    return {
      ...archive,
      [Symbol.asyncDispose]: async () => {
        this.#received.delete(archive.id)
        await archive[Symbol.asyncDispose]()
      },
    }
  }

  async openArchive(
    { id }: { id: string },
    { origin, ...options }: { origin: string; bytesMax: number; signal: AbortSignal },
  ): Promise<OpenedArchive> {
    const archive = this.#received.get(id)
    if (!archive) throw new Error("the archive is gone")
    const content = await this.#archives.contentOf(archive, options)
    const { manifestDigest } = content
    return { content, manifestDigest, diskName: diskNameOf(origin, manifestDigest) }
  }

  async import({ id }: { id: string }, { opened, ...options }: Bounded & { opened: Opened }): Promise<Made> {
    const archive = this.#received.get(id)
    if (!archive) throw new Error("the archive is gone")
    const { diskName, content } = opened as OpenedArchive
    const { bytesMax } = options
    const found = await this.find(diskName)
    if (found) return found
    // Not shared: its files go with the caller that has sent them.
    return await this.#work.join(`${diskName} of ${id}`, options, (shared) =>
      "layout" in content
        ? this.#unpackAndCommit(archive.staging, { ...content, diskName }, { ...shared, bytesMax })
        : this.#commit(archive.staging, { ...content.image, diskName }),
    )
  }

  async makeOf(
    disk: StillDisk,
    { diskName, config, programs, signal }: About & { diskName: string; signal: AbortSignal },
  ): Promise<Made> {
    const found = await this.find(diskName)
    if (found) return found
    await using staging = await makeStaging(this.#settings.dataDir)
    const path = join(staging.path, "disk.raw")
    await this.#settings.flatten(disk, path, { signal })
    signal.throwIfAborted()
    const sizeMib = Math.ceil((await stat(path)).size / 1024 / 1024)
    return await this.#commit(staging, { disk: path, sizeMib, config, programs, diskName })
  }

  /** Only what no running work needs may be here. */
  async removeUnfinished(): Promise<void> {
    const { trouble, fetchUids } = this.#settings
    if (!trouble) await endProgramsOf(fetchUids)
    await removeTree(tasksDirectory(this.#settings.dataDir))
  }

  async removeUnused(
    isNeeded: (disk: { name: string; hash: string }) => Promise<boolean>,
  ): Promise<string[]> {
    const { dataDir } = this.#settings
    const removed: string[] = []
    const names = (await imageNames(dataDir)).filter(isDiskName)
    if (names.length === 0) return removed
    await using staging = await makeStaging(dataDir)
    for (const name of names) {
      const disk = await readImage(dataDir, name).catch(whenGone)
      if (!disk || (await isNeeded(disk))) continue
      // At once, so that nobody finds it after the answer, or half of it.
      const isMoved = unlessMissing(() => {
        renameSync(join(dataDir, "images", name), join(staging.path, name))
        return true
      })
      if (isMoved) removed.push(name)
    }
    return removed
  }

  async evictLayers(): Promise<void> {
    await this.#blobs.evict(this.#settings.layersBytesMax)
  }

  async #fetchAndUnpack(asked: Asked, { resolved, manifest }: Pull, options: Bounded): Promise<Made> {
    const { dataDir } = this.#settings
    const { layers, configDigest, diskName, manifestDigest } = resolved
    const wanted = [{ digest: configDigest }, ...layers]
    this.#checkSize(layers)
    await using staging = await makeStaging(dataDir)
    let linked: ReadonlyMap<string, number> = new Map()
    const fetched = await fetchLayers(this.#settings, asked, {
      ...{ staging: staging.path, manifest, layers, signal: options.signal },
      onProgress: (layers) => options.onProgress({ step: "fetching", layers }),
      prepare: async (work) => {
        const digests = wanted.map(({ digest }) => digest)
        linked = await this.#blobs.linkInto(asked.host, digests, join(work, "blobs", "sha256"))
      },
    })
    options.signal.throwIfAborted()
    const layout = join(staging.path, "layout")
    const blobs = join(layout, "blobs", "sha256")
    await mkdir(blobs, { recursive: true, mode: 0o755 })
    for (const directory of [layout, join(layout, "blobs"), blobs]) await chmod(directory, 0o755)
    await this.#blobs.takeFrom(fetched, asked.host, wanted, { linked, into: blobs })
    await writeFile(join(blobs, hexOf(manifestDigest)), manifest, { mode: 0o444 })
    return await this.#unpackAndCommit(staging, { layout, manifestDigest, diskName }, options)
  }

  async #unpackAndCommit(
    staging: Staging,
    { layout, manifestDigest, diskName }: { layout: string; manifestDigest: string; diskName: string },
    options: Bounded,
  ): Promise<Made> {
    const { unpack, unpackUid, imageBytesMax, freeBytes } = this.#settings
    const unpackedBytes = Math.min(imageBytesMax, options.bytesMax)
    const states = new Map<string, LayerState>()
    const unpacked = await unpack({
      layout,
      manifestDigest,
      directory: join(staging.path, "disk"),
      uid: unpackUid,
      limits: { compressedBytes: imageBytesMax, unpackedBytes, freeBytes },
      onProgress: ({ layer, bytes, total }) => {
        states.set(layer, { digest: layer, bytes, total })
        options.onProgress({ step: "unpacking", layers: [...states.values()] })
      },
      signal: options.signal,
    })
    options.signal.throwIfAborted()
    return await this.#commit(staging, { ...unpacked, diskName })
  }

  async #commit(
    staging: Staging,
    image: Pick<UnpackedImage, "disk" | "sizeMib"> & About & { diskName: string },
  ): Promise<Made> {
    const { disk, sizeMib, config, diskName, programs } = image
    const { dataDir } = this.#settings
    const about = { config, ...(programs && { programs }) }
    await commitDisk({ dataDir, staging: staging.path, diskName, disk, sizeMib, ...about })
    const made = await this.find(diskName)
    if (!made) throw new Error(`${diskName} was not committed`)
    return made
  }

  #checkSize(layers: readonly { size: number }[]): void {
    const bytes = layers.reduce((sum, { size }) => sum + size, 0)
    const max = Math.min(this.#settings.imageBytesMax, unpackLimits.compressedBytes)
    if (bytes <= max) return
    throw new AppError(
      "too_large",
      `the image has ${mibOf(bytes)} MB of layers, at most ${mibOf(max)} MB are taken`,
      {
        hint: "the operator's limit is image_max_mb in config.yaml",
        reason: "too_many_bytes",
      },
    )
  }
}

/** Another clean-up may have removed it. */
function whenGone(error: unknown): undefined {
  if (!(error instanceof AppError && error.code === "not_found")) throw error
}

function mibOf(bytes: number): number {
  return Math.ceil(bytes / 1024 / 1024)
}
