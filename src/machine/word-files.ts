/**
 * `qemu.log` beside a disk: where earlier versions have kept QEMU's words, without a bound. Words go to a pipe now, so these files only
 * take space, and hold addresses of QEMU's memory.
 */

import { constants } from "node:fs"
import { open, readdir, rm } from "node:fs/promises"
import { join } from "node:path"

const wordFile = "qemu.log"

/** Before a machine starts in that directory, when no other has it open any more. */
export async function removeWordFile(directory: string): Promise<void> {
  await rm(join(directory, wordFile), { force: true })
}

/**
 * When a daemon starts; one look into each directory. They stay, empty: a machine that an earlier version has started may write on, and a
 * file without a name could grow unseen. One that is not there, is no file, or cannot be written keeps no daemon from starting.
 */
export async function emptyWordFiles(sandboxes: string): Promise<void> {
  for (const id of await readdir(sandboxes).catch(() => [])) {
    const flags = constants.O_WRONLY | constants.O_TRUNC | constants.O_NOFOLLOW
    const handle = await open(join(sandboxes, id, wordFile), flags).catch(() => undefined)
    await handle?.close()
  }
}
