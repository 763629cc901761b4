/** Images of users, whom they are shared with, tasks, and logins at registries. */

import type { Kysely } from "kysely"

export async function up(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable("images")
    .addColumn("id", "text", (column) => column.primaryKey())
    .addColumn("user_id", "text", (column) => column.notNull().references("users.id"))
    .addColumn("name", "text", (column) => column.notNull())
    .addColumn("reference", "text")
    .addColumn("index_digest", "text")
    .addColumn("manifest_digest", "text")
    .addColumn("platform", "text", (column) => column.notNull())
    .addColumn("disk_name", "text", (column) => column.notNull())
    .addColumn("disk_hash", "text", (column) => column.notNull())
    .addColumn("disk_mib", "integer", (column) => column.notNull())
    .addColumn("bytes", "integer", (column) => column.notNull())
    .addColumn("config", "text", (column) => column.notNull())
    .addColumn("state", "text", (column) => column.notNull())
    .addColumn("is_shared", "integer", (column) => column.notNull().defaultTo(0))
    .addColumn("created_at", "text", (column) => column.notNull())
    .addUniqueConstraint("images_user_name", ["user_id", "name"])
    .execute()

  await db.schema
    .createTable("image_shares")
    .addColumn("image_id", "text", (column) => column.notNull().references("images.id").onDelete("cascade"))
    .addColumn("user_id", "text", (column) => column.notNull().references("users.id").onDelete("cascade"))
    .addPrimaryKeyConstraint("image_shares_image_user", ["image_id", "user_id"])
    .execute()

  await db.schema
    .createTable("tasks")
    .addColumn("id", "text", (column) => column.primaryKey())
    .addColumn("user_id", "text", (column) => column.notNull().references("users.id").onDelete("cascade"))
    .addColumn("kind", "text", (column) => column.notNull())
    .addColumn("subject", "text", (column) => column.notNull())
    .addColumn("state", "text", (column) => column.notNull())
    .addColumn("progress", "text", (column) => column.notNull())
    .addColumn("result", "text")
    .addColumn("error", "text")
    .addColumn("reserved_mib", "integer", (column) => column.notNull().defaultTo(0))
    .addColumn("created_at", "text", (column) => column.notNull())
    .addColumn("ended_at", "text")
    .execute()
  await db.schema.createIndex("tasks_user").on("tasks").columns(["user_id", "created_at"]).execute()

  await db.schema
    .createTable("registry_logins")
    .addColumn("user_id", "text", (column) => column.notNull().references("users.id").onDelete("cascade"))
    .addColumn("host", "text", (column) => column.notNull())
    .addColumn("username", "text", (column) => column.notNull())
    .addColumn("ciphertext", "blob", (column) => column.notNull())
    .addColumn("created_at", "text", (column) => column.notNull())
    .addPrimaryKeyConstraint("registry_logins_user_host", ["user_id", "host"])
    .execute()
}
