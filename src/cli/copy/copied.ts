/** The result of a copy, and a message about the files it left out. */

import type { Output } from "../output.ts"
import { countText } from "../words.ts"

export type Copied = {
  entries: number
  bytes: number
  /** Number of files left out. */
  skipped: number
}

export const nothingCopied: Copied = { entries: 0, bytes: 0, skipped: 0 }

export function sumOf(one: Copied, other: Copied): Copied {
  return {
    entries: one.entries + other.entries,
    bytes: one.bytes + other.bytes,
    skipped: one.skipped + other.skipped,
  }
}

const linesMax = 5

export const notText = "its name is not UTF-8 text"

/** Bytes of a name that are not UTF-8 are read as U+FFFD: that is a different name, perhaps shared by several files. */
export function isText(name: string): boolean {
  return !name.includes("\uFFFD")
}

/** `count` is the total number, if not all have a line. */
export async function tellSkipped(
  out: Output,
  skipped: readonly string[],
  count = skipped.length,
): Promise<void> {
  const lines = skipped.slice(0, linesMax)
  for (const line of lines) await out.talk(`not copied: ${line}`)
  if (count > lines.length) await out.talk(`and ${countText(count - lines.length, "other")} not copied`)
}
