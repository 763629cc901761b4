/** The shape of an image's recipe. The recipes themselves are in `images/`. */

import type { ImageManifest } from "./manifest.ts"

/** A package of the npm registry. Its tarball is unpacked as it is: no scripts run, and no dependencies are added. */
export type NpmPackage = {
  name: string
  version: string
  /** In the format of package managers' lock files: `sha512-` and base64. */
  integrity: string
}

export type Recipe = {
  name: string
  /** Its description in lists: some words without a full stop. */
  summary: string
  /** The Debian release. */
  suite: string
  /** The disk's size as the guest sees it; holes are not stored. */
  sizeMib: number
  packages: readonly string[]
  npmPackages?: readonly NpmPackage[]
  /**
   * A shell script that completes the tree in the directory $1. $BHATTI_NPM_PACKAGES holds NAME.tgz of each npm
   * package.
   */
  customize: string
  /**
   * A program that runs in every sandbox of the image, from its template on, and a command that succeeds once it is
   * ready. Both run as `lohar` in /workspace.
   */
  programs?: { start: string; ready: string }
  /** Programs that every sandbox of the image starts and keeps running. */
  services?: ImageManifest["services"]
  /** Its entry point is an init, which every sandbox of the image starts unless it is asked not to. */
  initSystem?: boolean
}
