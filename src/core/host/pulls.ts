/** Images from registries and files, made into disks of this host. */

import type { ImageConfig } from "@bhatti/contract/image-config"
import type { ImagePrograms } from "./images.ts"
import type { Template } from "./templates.ts"

export type PullAsked = {
  /** The user who asks: fetches are shared out fairly among users. */
  owner: string
  host: string
  repository: string
  tag: string | null
  digest: string | null
  /** Such as `linux/amd64`. */
  platform: string
  credential?: { username: string; password: string } | undefined
}

export type ResolvedPull = {
  /** The image's name among the host's files. */
  diskName: string
  /** The digest of the document that the reference names. */
  indexDigest: string
  manifestDigest: string
  layers: { digest: string; size: number }[]
}

export type LayerProgress = { digest: string; bytes: number; total: number }
export type PullProgress = { step: "fetching" | "unpacking"; layers: LayerProgress[] }

/** A complete disk of this host. `bytes` is its space. */
export type MadeImage = {
  diskName: string
  hash: string
  diskMib: number
  bytes: number
  config: ImageConfig
}

/** Above `bytesMax`, a limit besides the operator's, an image is refused with the reason `too_many_bytes`. */
export type MakeOptions = { bytesMax: number } & {
  onProgress: (progress: PullProgress) => void
  signal: AbortSignal
}

/** A disk on a template that nobody writes to: of a finished copy, or of a draft. Without an id the template's own. */
export type StillDisk = { template: Template; copy: { id: string; isDraft: boolean } | null }

export interface Pulls {
  /** Asks the registry; throws if it does not let that account pull. */
  resolve(asked: PullAsked, signal: AbortSignal): Promise<{ resolved: ResolvedPull; manifest: Buffer }>
  /** Returns the disk if it is here. */
  find(diskName: string): Promise<MadeImage | undefined>
  /** Fetches what is missing and makes the disk; calls for the same disk share the work. */
  make(
    asked: PullAsked,
    pull: { resolved: ResolvedPull; manifest: Buffer },
    options: MakeOptions,
  ): Promise<MadeImage>
  /** Reads which image an archive holds. `origin` keeps users' files apart. */
  openArchive(
    archive: ImportedArchive,
    options: { origin: string; bytesMax: number; signal: AbortSignal },
  ): Promise<OpenedArchive>
  /** Makes the disk of an archive. */
  import(archive: ImportedArchive, options: MakeOptions & { opened: OpenedArchive }): Promise<MadeImage>
  /** Receives an archive into a file of the host; throws above `bytesMax`. */
  receive(bytes: AsyncIterable<Uint8Array>, options: { bytesMax: number }): Promise<ImportedArchive>
  /** Makes a disk of its own of a disk that stands still, with what lies below it. */
  makeOf(
    disk: StillDisk,
    options: {
      diskName: string
      config: ImageConfig
      /** Run in its templates. */
      programs?: ImagePrograms | undefined
      signal: AbortSignal
    },
  ): Promise<MadeImage>
  /** Removes what a daemon that died has left. */
  removeUnfinished(): Promise<void>
  /** Removes disks that are not needed, each at once after that answer; returns their names for the log. */
  removeUnused(isNeeded: (disk: { name: string; hash: string }) => Promise<boolean>): Promise<string[]>
  /** Evicts fetched layers above the operator's limit. */
  evictLayers(): Promise<void>
}

export type OpenedArchive = { diskName: string; manifestDigest: string }
/** Disposing it removes it from the host. */
export type ImportedArchive = { id: string; bytes: number } & AsyncDisposable
