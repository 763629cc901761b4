/** Marks the rows of a batch that is being made. */

import type { Kysely } from "kysely"

export async function up(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .alterTable("sandboxes")
    .addColumn("in_batch", "integer", (definition) => definition.notNull().defaultTo(0))
    .execute()
}
