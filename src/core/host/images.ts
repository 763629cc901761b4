/** Images and kernels. */

import type { GuestService } from "@bhatti/contract/guest"
import type { ImageConfig } from "@bhatti/contract/image-config"

/** Read from the host; only its adapters know where the files are. */
export type Image = {
  name: string
  hash: string
  diskMib: number
  programs?: ImagePrograms | undefined
  services?: readonly ImageService[] | undefined
  /** Undefined for images of our own. */
  config?: ImageConfig | undefined
  /** Its entry point is an init. */
  initSystem?: boolean | undefined
}
/** A program that its sandboxes keep running. */
export type ImageService = Omit<GuestService, "after" | "argv" | "program"> & {
  command: string
  after: string[]
}
/** Its start command and the command that proves it ready. */
export type ImagePrograms = { start: string; ready: string }
export type Kernel = { hash: string }

/** `usedMib` is its space on the host, `installedAt` an ISO time. */
export type InstalledImage = {
  name: string
  hash: string
  diskMib: number
  usedMib: number
  kernelVersion: string
  installedAt: string
}

/** An image that the host makes itself, of Debian's packages. */
export type HostRecipe = { name: string; summary: string }

export interface Images {
  /** The ones that can be installed, the default first. */
  readonly recipes: readonly HostRecipe[]
  /** Makes the image unless it is cached, and installs it. An abort leaves nothing half made. */
  install(name: string, options: { signal: AbortSignal; onStep: (words: string) => void }): Promise<void>
  /** The current image of every name, sorted by name. */
  list(): Promise<InstalledImage[]>
  readImage(name: string): Promise<Image>
  /** The kernel whose modules the image holds; without an image, the current one. */
  readKernel(image?: { name: string; hash: string }): Promise<Kernel>
  /**
   * Throws if an image is missing or known to be damaged. `isReadThrough` waits until the whole image has been checked.
   */
  checkImage(image: { name: string; hash: string }, options?: { isReadThrough: boolean }): Promise<void>
  /** Kernel for a boot that repairs the root filesystem. */
  repairKernel(kernel: Kernel): Promise<Kernel & Disposable>
  /**
   * Removes images (and their kernels) that nothing depends on and that are not used next; returns their names for the
   * log.
   */
  removeUnused(neededImages: ReadonlySet<string>): Promise<string[]>
}
