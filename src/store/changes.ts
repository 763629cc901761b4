/**
 * The database's own id and its change counter. Triggers count, so that every change is counted in its own transaction,
 * whether the daemon, an operator's command or later code makes it.
 */

import { type Kysely, sql } from "kysely"
import type { Mark } from "./mark.ts"
import type { Schema } from "./schema.ts"
import { countChangesOf } from "./sqlite/queries.ts"

/**
 * Tables that define sandboxes, their owners and their access. Events are left out, since no decision depends on them.
 */
const countedTables = [
  "users",
  "api_keys",
  "sandboxes",
  "secrets",
  "published_ports",
  "snapshots",
  "images",
  "image_shares",
  "registry_logins",
] as const

/** Recreates the triggers after each migration: a table that a migration has rebuilt has lost them. */
export async function countChanges(db: Kysely<Schema>): Promise<void> {
  await countChangesOf(db, countedTables)
}

export async function readInstallation(db: Kysely<Schema>): Promise<Mark> {
  return await db.selectFrom("installation").select(["id", "counter"]).executeTakeFirstOrThrow()
}

/** Prevents an outdated database from passing for this one. */
export async function raiseCounter(db: Kysely<Schema>, atLeast: number): Promise<void> {
  await db
    .updateTable("installation")
    .set({ counter: sql<number>`case when counter > ${atLeast} then counter else ${atLeast} end + 1` })
    .execute()
}
