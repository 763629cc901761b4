/**
 * The mark of an installation, `installation.json` in the data directory: the id of its database, and the database's
 * change count when the mark was last written. A database with a lower count is outdated. Beside it, the file
 * `recovering` exists while a database is being rebuilt.
 */

import { existsSync, readFileSync } from "node:fs"
import { rename, rm } from "node:fs/promises"
import { join } from "node:path"
import { z } from "zod"
import { syncPath, writeSynced } from "../lib/durable.ts"
import { unlessMissing, whenNowhere } from "../lib/missing-files.ts"
import { parseJson } from "../lib/parse-json.ts"

export type Mark = { id: string; counter: number }

/** Has a checksum: a damaged mark must not make a good database look wrong. */
const MarkFile = z
  .strictObject({ id: z.string().min(1), counter: z.int().nonnegative(), checksum: z.string() })
  .refine((file) => file.checksum === checksumOf(file))

function checksumOf({ id, counter }: Mark): string {
  return new Bun.CryptoHasher("sha256").update(`${id} ${counter}`).digest("hex").slice(0, 16)
}

export function markPath(dataDir: string): string {
  return join(dataDir, "installation.json")
}

export function readMark(dataDir: string): Mark | "missing" | "damaged" {
  const text = unlessMissing(() => readFileSync(markPath(dataDir), "utf8"), whenNowhere)
  if (text === undefined) return "missing"
  const file = MarkFile.safeParse(parseJson(text))
  return file.success ? { id: file.data.id, counter: file.data.counter } : "damaged"
}

/** The file's content. */
export function markText({ id, counter }: Mark): string {
  return `${JSON.stringify({ id, counter, checksum: checksumOf({ id, counter }) })}\n`
}

/** Writes atomically and durably. */
export async function writeMark(dataDir: string, mark: Mark): Promise<void> {
  const path = markPath(dataDir)
  const beside = `${path}.${process.pid}`
  try {
    await writeSynced(beside, markText(mark), "w")
    await rename(beside, path)
  } finally {
    await rm(beside, { force: true })
  }
}

/**
 * Set from before the first change until the database is complete: a half-rebuilt database counts changes too, and must
 * not pass.
 */
export async function beginRecovery(dataDir: string): Promise<void> {
  await writeSynced(recoveringPath(dataDir), "", "w")
  await syncPath(dataDir)
}

export async function endRecovery(dataDir: string): Promise<void> {
  // The mark is durable before the refusal is lifted.
  await syncPath(dataDir)
  await rm(recoveringPath(dataDir), { force: true })
}

/** Returns whether a recovery began and has not ended. */
export function isRecovering(dataDir: string): boolean {
  return existsSync(recoveringPath(dataDir))
}

function recoveringPath(dataDir: string): string {
  return join(dataDir, "recovering")
}
