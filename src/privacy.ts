/**
 * Keeps the data directory private. A directory that others can read is closed to them; one that others could have
 * written to is refused, since its files may be theirs.
 */

import { chmodSync, statSync } from "node:fs"
import { dirname, resolve } from "node:path"
import { AppError } from "@bhatti/contract/errors"

const writableByOthers = 0o022
const sticky = 0o1000

/** Returns notes for the operator. Another check reports a missing directory. */
export function makePrivate(dataDir: string): string[] {
  const found = statSync(dataDir, { throwIfNoEntry: false })
  if (!found?.isDirectory()) return []
  const own = process.getuid?.() ?? 0
  const mode = found.mode & 0o7777
  if (found.uid !== own) {
    throw refusal(
      `the data directory ${dataDir} belongs to user ${found.uid}, not to ${own} who runs the daemon`,
      [`check that its contents are yours, then: sudo chown ${own} ${dataDir}`],
    )
  }
  if ((mode & writableByOthers) !== 0) {
    throw refusal(`others may write to the data directory ${dataDir} (mode ${mode.toString(8)})`, [
      `look for files of others in it: sudo find ${dataDir} ! -user ${own}`,
      `then: sudo chmod 700 ${dataDir}`,
    ])
  }
  const notes: string[] = []
  if ((mode & 0o077) !== 0) {
    chmodSync(dataDir, 0o700)
    notes.push(`others could look into ${dataDir} (mode ${mode.toString(8)}); it is closed to them now`)
  }
  const parent = dirname(resolve(dataDir))
  const above = statSync(parent)
  const isOthers = above.uid !== 0 && above.uid !== own
  if (isOthers || ((above.mode & writableByOthers) !== 0 && (above.mode & sticky) === 0))
    notes.push(`others may write to ${parent}, so they can put another directory in the place of ${dataDir}`)
  return notes
}

function refusal(message: string, hints: string[]): AppError {
  return new AppError("unavailable", message, { hint: hints.join("; "), retryable: false })
}
