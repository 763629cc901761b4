/**
 * The place of one piece of work: everything that is unfinished lies here, below one directory that a daemon empties
 * when it starts.
 *
 *     DATA/registry/tasks/ID/{work,root,layout,disk,image}
 */

import { chmod, chown, lstat, mkdir, rm } from "node:fs/promises"
import { join } from "node:path"
import { randomHex } from "../../lib/random-hex.ts"
import { refusal } from "../refusal.ts"

export type Staging = { path: string } & AsyncDisposable

export function tasksDirectory(dataDir: string): string {
  return join(dataDir, "registry", "tasks")
}

export async function makeStaging(dataDir: string): Promise<Staging> {
  const path = join(tasksDirectory(dataDir), randomHex(8))
  await mkdir(path, { recursive: true, mode: 0o700 })
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) }
}

/** Makes the directory that a program may write to, with those below it. */
export async function makeWork(staging: string, uid: number): Promise<string> {
  const work = join(staging, "work")
  for (const directory of [work, join(work, "layout"), join(work, "blobs"), join(work, "blobs", "sha256")]) {
    await mkdir(directory, { mode: 0o700 })
    await chmod(directory, 0o700)
    await chown(directory, uid, uid)
  }
  return work
}

/** A program that has ended may have left links, and files there are changed as root from now on. */
export async function refuseLinks(directories: readonly string[]): Promise<void> {
  for (const path of directories)
    if (!(await lstat(path)).isDirectory())
      throw refusal("missing_blob", "the directory of blobs was replaced")
}
