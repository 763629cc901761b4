/** What an image is made of. The recipes themselves are in `images/`; this is the shape they share. */

export type Recipe = {
  name: string
  /** The Debian release. */
  suite: string
  /** The disk's size as the guest sees it; holes are not stored. */
  sizeMib: number
  packages: readonly string[]
  /** A shell script that finishes the tree in the directory $1. */
  customize: string
}
