/** A file of a sandbox on one line. */

import type { FileEntry } from "@bhatti/contract/file"
import { printable } from "./words.ts"

export function entryName(entry: FileEntry): string {
  const name = printable(entry.name)
  if (entry.is_dir) return `${name}/`
  return entry.target === null ? name : `${name} -> ${printable(entry.target)}`
}
