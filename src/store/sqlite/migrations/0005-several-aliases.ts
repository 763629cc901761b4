/** Allows several aliases per port. SQLite can drop a table's constraint only with the table. */

import { type Kysely, sql } from "kysely"

export async function up(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable("published_ports_next")
    .addColumn("id", "text", (column) => column.primaryKey())
    .addColumn("sandbox_id", "text", (column) =>
      column.notNull().references("sandboxes.id").onDelete("cascade"),
    )
    .addColumn("port", "integer", (column) => column.notNull())
    .addColumn("alias", "text", (column) => column.notNull().unique())
    .addColumn("created_at", "text", (column) => column.notNull())
    .execute()
  await sql`
    insert into published_ports_next (id, sandbox_id, port, alias, created_at)
    select id, sandbox_id, port, alias, created_at from published_ports order by rowid`.execute(db)
  await db.schema.dropTable("published_ports").execute()
  await db.schema.alterTable("published_ports_next").renameTo("published_ports").execute()
  await db.schema
    .createIndex("published_ports_sandbox")
    .on("published_ports")
    .columns(["sandbox_id", "port"])
    .execute()
}
