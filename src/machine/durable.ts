/** Files that must be complete after a crash: written, synced, and published by renaming their directory. */

import { open, rename, rm } from "node:fs/promises"
import { dirname } from "node:path"

export async function syncPath(path: string): Promise<void> {
  const handle = await open(path, "r")
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

export async function writeSynced(path: string, content: string | Uint8Array): Promise<void> {
  const handle = await open(path, "wx", 0o600)
  try {
    await handle.writeFile(content)
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** Puts a finished directory in its final place and replaces what was there before. */
export async function publishDirectory(beside: string, final: string): Promise<void> {
  await syncPath(beside)
  await rm(final, { recursive: true, force: true })
  await rename(beside, final)
  await syncPath(dirname(final))
}
