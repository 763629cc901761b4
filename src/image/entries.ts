/** Lists a directory's entries of one kind, which their names tell. */
import { readdirSync } from "node:fs"
import { unlessMissing } from "../lib/missing-files.ts"

/** Returns the text matched by the pattern's group in each name of a directory; empty if the directory is missing. */
export function entriesOf(directory: string, pattern: RegExp): string[] {
  const names = unlessMissing(() => readdirSync(directory)) ?? []
  return names.map((name) => pattern.exec(name)?.[1]).filter((name) => name !== undefined)
}
