/**
 * Checks that an unpacked package in the cache is unchanged: one checksum over the names and bytes of all its
 * files.
 */

import { readdir, readFile } from "node:fs/promises"
import { join, relative } from "node:path"
import { Checksum } from "../lib/checksum.ts"
import { errorCodeOf } from "../lib/error-code.ts"
import { commitText } from "./commit.ts"

const checksumName = "checksum"

/** Accepts the tree's present state as intact. */
export async function recordTree(directory: string): Promise<void> {
  await Bun.write(join(directory, checksumName), await checksumOf(directory))
}

/** A tree of an earlier version has no checksum yet and gets one. */
export async function isWholeTree(directory: string): Promise<boolean> {
  const found = await checksumOf(directory)
  const recorded = Bun.file(join(directory, checksumName))
  if (await recorded.exists()) return (await recorded.text()) === found
  try {
    await commitText(join(directory, checksumName), found)
  } catch (error) {
    // Another user's cache.
    if (!["EACCES", "EROFS", "EPERM"].includes(errorCodeOf(error) ?? "")) throw error
  }
  return true
}

async function checksumOf(directory: string): Promise<string> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true })
  const paths = entries
    .filter((entry) => entry.isFile())
    .map((entry) => relative(directory, join(entry.parentPath, entry.name)))
    .filter((path) => path !== checksumName && !path.startsWith("."))
  const checksum = new Checksum()
  for (const path of paths.sort()) {
    checksum.add(Buffer.from(`${path}\n`))
    checksum.add(await readFile(join(directory, path)))
  }
  return checksum.value()
}
