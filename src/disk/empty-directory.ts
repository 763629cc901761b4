/**
 * An empty directory to fill. The directory may be a mount point, which can be neither removed nor renamed and may
 * contain a `lost+found`.
 */

import { chmod, mkdir, readdir, realpath, rm } from "node:fs/promises"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { whenMissing } from "../lib/missing-files.ts"

/** File systems put repaired files here. The directory does not count as content. */
const ofFileSystem = "lost+found"

export async function contentOf(directory: string): Promise<string[]> {
  return (await readdir(directory)).filter((name) => name !== ofFileSystem)
}

/** Creates the directory, or takes an existing empty one. Returns its path with links resolved. */
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

/** Restores the state that `takeEmpty` found. */
export async function giveBack({ path, isNew }: { path: string; isNew: boolean }): Promise<void> {
  try {
    for (const name of await contentOf(path)) await rm(join(path, name), { recursive: true, force: true })
    if (isNew) await rm(path, { recursive: true, force: true })
  } catch (error) {
    whenMissing(error)
  }
}
