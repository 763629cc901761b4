/** Lists a directory's entries of one kind, which their names tell. */
import { readdir } from "node:fs/promises"
import { exists } from "../lib/missing-files.ts"

/** Returns the text matched by the pattern's group in each name of a directory; empty if the directory is missing. */
export async function entriesOf(directory: string, pattern: RegExp): Promise<string[]> {
  if (!(await exists(directory))) return []
  const names = await readdir(directory)
  return names.map((name) => pattern.exec(name)?.[1]).filter((name) => name !== undefined)
}
