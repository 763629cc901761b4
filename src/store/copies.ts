/**
 * Copies of the database in `database-copies`: one before every migration, one per day. A copy is private and either
 * complete or absent, and their number is limited.
 */

import { closeSync, mkdirSync, openSync, readdirSync } from "node:fs"
import { rename, rm } from "node:fs/promises"
import { join } from "node:path"
import type { Kysely } from "kysely"
import { syncPath } from "../lib/durable.ts"
import { unlessMissing } from "../lib/missing-files.ts"
import type { Mark } from "./mark.ts"
import type { Schema } from "./schema.ts"
import { copyInto, inspect } from "./sqlite/file.ts"

/** A week of daily copies, and those of updates. */
const keptMax = 10
const everyMs = 86_400_000
const unfinished = "tmp-"

export function copiesOf(dataDir: string): string {
  return join(dataDir, "database-copies")
}

/** Names begin with the time, so sorting them sorts by age. */
export function listCopies(dataDir: string): string[] {
  const names = unlessMissing(() => readdirSync(copiesOf(dataDir))) ?? []
  return names.filter((name) => /^\d{8}T\d{6}Z.*\.db$/.test(name)).sort()
}

export async function makeCopy(db: Kysely<Schema>, dataDir: string, why: string): Promise<void> {
  const directory = copiesOf(dataDir)
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  const name = `${timeName(new Date())}-${why}.db`
  const beside = join(directory, `${unfinished}${name}`)
  await writeCopy(db, beside)
  await rename(beside, join(directory, name))
  const old = listCopies(dataDir).slice(0, -keptMax)
  for (const one of old) await rm(join(directory, one), { force: true })
}

/** Writes a complete copy of the current database to another path. */
export async function writeCopy(db: Kysely<Schema>, path: string): Promise<void> {
  await rm(path, { force: true })
  // The copy is private from its first byte.
  closeSync(openSync(path, "wx", 0o600))
  try {
    await copyInto(db, path)
    await syncPath(path)
  } catch (error) {
    await rm(path, { force: true })
    throw error
  }
}

/** Returns whether the daily copy is due. A clock that was set back causes an extra one. */
export function isCopyDue(dataDir: string, nowMs: number): boolean {
  const newest = listCopies(dataDir).at(-1)
  return newest === undefined || Math.abs(nowMs - timeOf(newest)) >= everyMs
}

export type Candidate = { path: string; mark: Mark; isCopy: boolean }

/** The intact databases of that installation (the current one and its copies), highest change count first. */
export function candidates(dataDir: string, databaseFile: string, id: string | undefined): Candidate[] {
  const paths = [databaseFile, ...listCopies(dataDir).map((name) => join(copiesOf(dataDir), name))]
  return paths
    .flatMap((path, index) => {
      const found = inspect(path)
      const mark = found.kind === "whole" ? found.mark : undefined
      return mark && (id === undefined || mark.id === id) ? [{ path, mark, isCopy: index > 0 }] : []
    })
    .toSorted((a, b) => b.mark.counter - a.mark.counter)
}

export function timeName(time: Date): string {
  return `${time.toISOString().replaceAll(/[-:]/g, "").slice(0, 15)}Z`
}

function timeOf(name: string): number {
  const [, date = "", time = ""] = /^(\d{8})T(\d{6})Z/.exec(name) ?? []
  return Date.parse(
    `${date.replace(/(....)(..)(..)/, "$1-$2-$3")}T${time.replace(/(..)(..)(..)/, "$1:$2:$3")}Z`,
  )
}
