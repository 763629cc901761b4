/**
 * Reads and removes files that may be missing. Calls without a promise are for small files on the path of a create:
 * each promise waits for one of the engine's threads, which on a busy host takes longer than the work.
 */

import { readFileSync, unlinkSync } from "node:fs"
import { stat } from "node:fs/promises"
import { errorCodeOf } from "./error-code.ts"

export function isMissing(error: unknown): boolean {
  return errorCodeOf(error) === "ENOENT"
}

/** Like `isMissing`, and also if a part of the path is not a directory. */
export function leadsNowhere(error: unknown): boolean {
  return isMissing(error) || errorCodeOf(error) === "ENOTDIR"
}

/** To catch the error of a missing path; throws every other one. */
export function whenMissing(error: unknown): undefined {
  if (!isMissing(error)) throw error
}

/** Like `whenMissing`, with `leadsNowhere`. */
export function whenNowhere(error: unknown): undefined {
  if (!leadsNowhere(error)) throw error
}

export async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(whenMissing)) !== undefined
}

/** Returns what `look` returns, or `undefined` if the path does not exist. */
export function unlessMissing<T>(look: () => T, caught = whenMissing): T | undefined {
  try {
    return look()
  } catch (error) {
    return caught(error)
  }
}

export function removeFile(path: string): void {
  unlessMissing(() => unlinkSync(path))
}

/** Returns `undefined` if the file cannot be read, for whatever reason. */
export function readIfReadable(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8")
  } catch (error) {
    if (errorCodeOf(error) === undefined) throw error
    return undefined
  }
}
