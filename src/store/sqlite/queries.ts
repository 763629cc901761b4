/** Parts of queries that only SQLite understands. */

import { type Kysely, sql } from "kysely"
import type { Schema } from "../schema.ts"

/** The order in which rows were inserted. */
export const insertionOrder = sql`rowid`

/** A list as one parameter: separate statements for every length would each have to be prepared. */
export function among<T extends string>(values: Iterable<T>) {
  return sql<T>`(select value from json_each(${JSON.stringify([...values])}))`
}

/** The image's row of a table of specifications. */
export function specImageId(table: "sandboxes" | "snapshots") {
  return sql<string | null>`json_extract(${sql.ref(`${table}.spec`)}, '$.imageId')`
}

/** Seconds since 1970, by the database's clock. */
export const nowSec = sql<number>`unixepoch()`

/**
 * Lets nobody else write until the transaction ends: SQLite has one lock for all rows. The update fires no trigger, so
 * the installation counts no change.
 */
export async function lockRows(db: Kysely<Schema>): Promise<void> {
  await db
    .updateTable("installation")
    .set(({ ref }) => ({ counter: ref("counter") }))
    .execute()
}

/** Changes whenever another process writes to the database. */
export async function foreignVersion(db: Kysely<Schema>): Promise<number> {
  const { rows } = await sql<{ data_version: number }>`pragma data_version`.execute(db)
  return rows[0]?.data_version ?? 0
}

/** Makes every change of a row raise the installation's counter, in the same transaction and whoever makes it. */
export async function countChangesOf(db: Kysely<Schema>, tables: readonly (keyof Schema)[]): Promise<void> {
  for (const table of tables) {
    for (const change of ["insert", "update", "delete"]) {
      await sql`
        create trigger if not exists ${sql.ref(`count_${table}_${change}`)}
        after ${sql.raw(change)} on ${sql.ref(table)}
        begin update installation set counter = counter + 1; end`.execute(db)
    }
  }
}
