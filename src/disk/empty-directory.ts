/** A directory to fill, which may be a mount point: that one can be neither removed nor renamed, and may have a `lost+found` of its own. */

import { chmod, mkdir, readdir, realpath, rm } from "node:fs/promises"
import { join } from "node:path"
import { AppError } from "../contract/errors.ts"
import { errorCodeOf } from "../lib/error-code.ts"

/** Where file systems put what they repair; theirs, and no content. */
const ofFileSystem = "lost+found"

export async function contentOf(directory: string): Promise<string[]> {
  return (await readdir(directory)).filter((name) => name !== ofFileSystem)
}

/** Makes one, or takes one that is there and has no content. Returns its path without links. */
export async function takeEmpty(directory: string): Promise<{ path: string; isNew: boolean }> {
  const isNew = (await mkdir(directory, { recursive: true, mode: 0o700 })) !== undefined
  const path = await realpath(directory)
  if ((await contentOf(path)).length > 0) {
    throw new AppError("conflict", `${directory} is not empty`, {
      hint: "name another directory, or move away what is in that one first",
    })
  }
  await chmod(path, 0o700)
  return { path, isNew }
}

/** Leaves it as `takeEmpty` found it. */
export async function giveBack({ path, isNew }: { path: string; isNew: boolean }): Promise<void> {
  try {
    for (const name of await contentOf(path)) await rm(join(path, name), { recursive: true, force: true })
    if (isNew) await rm(path, { recursive: true, force: true })
  } catch (error) {
    if (errorCodeOf(error) !== "ENOENT") throw error
  }
}
