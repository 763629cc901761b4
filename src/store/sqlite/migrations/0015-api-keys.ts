/** Keys of a user that may do less than the user. */

import type { Kysely } from "kysely"

export async function up(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable("api_keys")
    .addColumn("id", "text", (column) => column.primaryKey())
    .addColumn("user_id", "text", (column) => column.notNull().references("users.id").onDelete("cascade"))
    .addColumn("name", "text", (column) => column.notNull())
    .addColumn("key_hash", "text", (column) => column.notNull().unique())
    .addColumn("scope", "text", (column) => column.notNull())
    .addColumn("expires_at", "integer")
    .addColumn("created_at", "text", (column) => column.notNull())
    .addUniqueConstraint("api_keys_user_name", ["user_id", "name"])
    .execute()
}
