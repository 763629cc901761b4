/**
 * `qemu.log` beside a disk: earlier versions kept QEMU's output there, without a limit. Output goes to a pipe now,
 * so these files only waste space and expose addresses of QEMU's memory.
 */

import { constants } from "node:fs"
import { open, readdir } from "node:fs/promises"
import { join } from "node:path"
import { removeFile } from "../lib/missing-files.ts"

const logName = "qemu.log"

/** Runs before a machine starts in that directory, when no other process has the file open. */
export function removeOldLog(directory: string): void {
  removeFile(join(directory, logName))
}

/**
 * Empties the files when a daemon starts, with one look into each directory. The empty files stay: a machine
 * started by an earlier version may still write, and an unlinked file could grow unseen. A file that is missing,
 * not a regular file or not writable does not keep the daemon from starting.
 */
export async function emptyOldLogs(sandboxes: string): Promise<void> {
  for (const id of await readdir(sandboxes).catch(() => [])) {
    const flags = constants.O_WRONLY | constants.O_TRUNC | constants.O_NOFOLLOW
    const handle = await open(join(sandboxes, id, logName), flags).catch(() => undefined)
    await handle?.close()
  }
}
