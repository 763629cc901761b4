/** Disks of this host, made into layers: a sandbox's for an image of it, an image's for its way out. */

import type { ImageConfig } from "@bhatti/contract/image-config"
import type { ImagePrograms, ImageService } from "./images.ts"
import type { MadeImage, MakeOptions, StillDisk } from "./pulls.ts"

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
  make(packed: Packed, options: MakeOptions & { bytesMax: number }): Promise<MadeImage>
}
