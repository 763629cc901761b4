/** Removes a directory with all that is in it, if there is one: on a read-only file system even removing nothing is refused. */

import { existsSync } from "node:fs"
import { rm } from "node:fs/promises"

export async function removeTree(path: string): Promise<void> {
  if (existsSync(path)) await rm(path, { recursive: true, force: true })
}
