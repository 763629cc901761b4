/** Layers of disks of this host: of a sandbox's for an image of it, of an image's to leave the host. */

import type { ImageConfig } from "@bhatti/contract/image-config"
import type { ImagePrograms, ImageService } from "./images.ts"
import type { LayerProgress, MadeImage, MakeOptions, PullAsked, StillDisk } from "./pulls.ts"

export type PackSource = { disk: StillDisk; diskMib: number }

/** The facts that an image tells about its sandboxes. */
export type PackedAbout = {
  config: ImageConfig
  services: readonly ImageService[]
  initSystem: boolean
  programs: ImagePrograms | undefined
}

/** A layer of a sandbox, in a place of its own; disposing it removes it. */
export type Packed = { diskName: string; manifestDigest: string; bytes: number } & AsyncDisposable

/** An image on this host, by the name and hash of its disk. */
export type FinishedImage = { name: string; hash: string; diskMib: number; config: ImageConfig }
export type PushProgress = { step: "packing" | "pushing"; layers: LayerProgress[] }

export interface Packs {
  /**
   * Makes a layer of the sandbox's files, without its identity. `origin` keeps users' disks apart; throws above
   * `bytesMax`.
   */
  pack(
    source: PackSource,
    about: PackedAbout,
    options: { origin: string; bytesMax: number; signal: AbortSignal },
  ): Promise<Packed>
  /** Makes the disk of an image of that layer. */
  make(packed: Packed, options: MakeOptions): Promise<MadeImage>
  /** Yields an archive that other programs load. An owner's exports wait for each other. */
  export(
    image: FinishedImage,
    options: { owner: string; shownAs: string; signal: AbortSignal },
  ): AsyncIterable<Uint8Array>
  /** Returns the digest of the image in the registry. */
  push(
    image: FinishedImage,
    to: Omit<PullAsked, "digest" | "platform">,
    options: { onProgress: (progress: PushProgress) => void; signal: AbortSignal },
  ): Promise<{ digest: string }>
}
