/** What a copy has done, and in words what it has not. */

import type { Output } from "../output.ts"
import { countText } from "../words.ts"

export type Copied = { entries: number; bytes: number }

const linesMax = 5

export const notText = "its name is no UTF-8 text"

/** Bytes of a name that are no UTF-8 are read as U+FFFD: it is another name then, and perhaps several files'. */
export function isText(name: string): boolean {
  return !name.includes("\uFFFD")
}

export async function tellSkipped(out: Output, skipped: readonly string[]): Promise<void> {
  for (const line of skipped.slice(0, linesMax)) await out.talk(`not copied: ${line}`)
  if (skipped.length > linesMax)
    await out.talk(`and ${countText(skipped.length - linesMax, "other")} not copied`)
}
