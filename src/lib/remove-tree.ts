/** Removes a directory tree if it exists: on a read-only file system even removing a missing one fails. */

import { existsSync } from "node:fs"
import { rm } from "node:fs/promises"

export async function removeTree(path: string): Promise<void> {
  if (existsSync(path)) await rm(path, { recursive: true, force: true })
}
