/** Files that must be complete after a crash: written beside their final place, synced, and renamed. */

import { open, rename } from "node:fs/promises"
import { dirname } from "node:path"

export async function syncPath(path: string): Promise<void> {
  await using handle = await open(path, "r")
  await handle.sync()
}

/** `wx` refuses a file that exists, `w` replaces its content. */
export async function writeSynced(
  path: string,
  content: string | Uint8Array,
  flags: "w" | "wx" = "wx",
): Promise<void> {
  await using handle = await open(path, flags, 0o600)
  await handle.writeFile(content)
  await handle.sync()
}

/** Puts a finished file or directory in its final place. A file replaces an earlier one, a directory an empty one. */
export async function renameDurably(beside: string, final: string): Promise<void> {
  await syncPath(beside)
  await rename(beside, final)
  await syncPath(dirname(final))
}
