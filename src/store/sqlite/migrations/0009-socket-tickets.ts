/** Tickets that open WebSockets. */

import type { Kysely } from "kysely"

export async function up(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable("socket_tickets")
    .addColumn("id", "text", (column) => column.primaryKey())
    .addColumn("user_id", "text", (column) => column.notNull().references("users.id").onDelete("cascade"))
    .addColumn("key_hash", "text", (column) => column.notNull())
    .addColumn("expires_at", "integer", (column) => column.notNull())
    .execute()
  await db.schema.createIndex("socket_tickets_user").on("socket_tickets").column("user_id").execute()
}
