/**
 * The database's own id and the count of its changes. Triggers count, so that each change is counted in its own transaction whoever makes
 * it: the daemon, an operator's command, or code that is written later.
 */

import { type Kysely, sql } from "kysely"
import type { Mark } from "./mark.ts"
import type { Schema } from "./schema.ts"

/** Tables that define sandboxes, their owners and their ways in. Events do not: they tell, and decide nothing. */
const countedTables = ["users", "sandboxes", "secrets", "published_ports", "snapshots"] as const

/** After each migration anew: a table that one has made again has lost its triggers. */
export async function countChanges(db: Kysely<Schema>): Promise<void> {
  for (const table of countedTables) {
    for (const change of ["insert", "update", "delete"]) {
      await sql`
        create trigger if not exists ${sql.ref(`count_${table}_${change}`)}
        after ${sql.raw(change)} on ${sql.ref(table)}
        begin update installation set counter = counter + 1; end`.execute(db)
    }
  }
}

export async function readInstallation(db: Kysely<Schema>): Promise<Mark> {
  return await db.selectFrom("installation").select(["id", "counter"]).executeTakeFirstOrThrow()
}

/** So that no older database passes for this one. */
export async function raiseCounter(db: Kysely<Schema>, atLeast: number): Promise<void> {
  await db
    .updateTable("installation")
    .set({ counter: sql<number>`max(counter, ${atLeast}) + 1` })
    .execute()
}
