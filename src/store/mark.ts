/**
 * The mark of an installation, `installation.json` in the data directory: the id that its database has too, and the count of changes that
 * the database had when the mark was written last. A database that has counted less is an older one.
 */

import { readFileSync } from "node:fs"
import { open, rename } from "node:fs/promises"
import { join } from "node:path"
import { z } from "zod"
import { errorCodeOf } from "../lib/error-code.ts"
import { parseJson } from "../lib/parse-json.ts"

export const Mark = z.strictObject({ id: z.string().min(1), counter: z.int().nonnegative() })
export type Mark = z.infer<typeof Mark>

export function markPath(dataDir: string): string {
  return join(dataDir, "installation.json")
}

export function readMark(dataDir: string): Mark | "missing" | "damaged" {
  let text: string
  try {
    text = readFileSync(markPath(dataDir), "utf8")
  } catch (error) {
    const code = errorCodeOf(error)
    if (code === "ENOENT" || code === "ENOTDIR") return "missing"
    throw error
  }
  const mark = Mark.safeParse(parseJson(text))
  return mark.success ? mark.data : "damaged"
}

/** Whole or not at all, also after a power cut. */
export async function writeMark(dataDir: string, mark: Mark): Promise<void> {
  const path = markPath(dataDir)
  const beside = `${path}.${process.pid}`
  const handle = await open(beside, "w", 0o600)
  try {
    await handle.writeFile(`${JSON.stringify(mark)}\n`)
    await handle.sync()
  } finally {
    await handle.close()
  }
  await rename(beside, path)
}
