/** Replaces an installed file by the cache's, if it is another file and damaged. */
import { stat } from "node:fs/promises"
import { exists } from "../lib/missing-files.ts"
import { replaceByLink } from "./commit.ts"
import { proveFile } from "./manifest.ts"

export async function heal(source: string, target: string, isWhole: typeof hasSameBytes): Promise<void> {
  // It is the same file as the cache's, so it is as intact as that.
  if (!(await isSameFile(source, target)) && !(await isWhole(source, target)))
    await replaceByLink(source, target)
}

async function isSameFile(one: string, other: string): Promise<boolean> {
  if (!(await exists(other))) return false
  const [a, b] = [await stat(one), await stat(other)]
  return a.ino === b.ino && a.dev === b.dev
}

export async function hasSameBytes(one: string, other: string): Promise<boolean> {
  if (!(await exists(other))) return false
  const [a, b] = [await proveFile(one), await proveFile(other)]
  return a.size === b.size && a.sha256 === b.sha256
}
