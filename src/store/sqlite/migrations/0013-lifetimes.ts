/** Times to live of sandboxes, since when a stopped one is, and the host's clock that both are told in. */

import type { Kysely } from "kysely"

export async function up(db: Kysely<unknown>): Promise<void> {
  await db.schema.alterTable("sandboxes").addColumn("lifetime", "text").execute()
  await db.schema.alterTable("sandboxes").addColumn("due_ms", "integer").execute()
  await db.schema.alterTable("sandboxes").addColumn("stopped", "text").execute()
  await db.schema.createIndex("sandboxes_due").on("sandboxes").column("due_ms").execute()
  await db.schema
    .createTable("host_clock")
    .addColumn("boot_id", "text", (column) => column.notNull())
    .addColumn("boot_ms", "integer", (column) => column.notNull())
    .addColumn("host_ms", "integer", (column) => column.notNull())
    .execute()
}
