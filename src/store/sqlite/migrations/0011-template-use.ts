/** Space of the templates that one account alone uses, as last measured. */

import type { Kysely } from "kysely"

export async function up(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable("template_use")
    .addColumn("id", "text", (column) => column.primaryKey())
    .addColumn("user_id", "text", (column) => column.notNull().references("users.id").onDelete("cascade"))
    .addColumn("used_mib", "integer", (column) => column.notNull())
    .execute()
  await db.schema.createIndex("template_use_user").on("template_use").column("user_id").execute()
}
