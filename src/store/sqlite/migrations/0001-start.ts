/** Users, sandboxes, secrets and published ports. */

import type { Kysely } from "kysely"

export async function up(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable("users")
    .addColumn("id", "text", (column) => column.primaryKey())
    .addColumn("name", "text", (column) => column.notNull().unique())
    .addColumn("key_hash", "text", (column) => column.notNull().unique())
    .addColumn("max_sandboxes", "integer", (column) => column.notNull())
    .addColumn("max_cpus", "integer", (column) => column.notNull())
    .addColumn("max_memory_mib", "integer", (column) => column.notNull())
    .addColumn("created_at", "text", (column) => column.notNull())
    .execute()

  await db.schema
    .createTable("sandboxes")
    .addColumn("id", "text", (column) => column.primaryKey())
    .addColumn("user_id", "text", (column) => column.references("users.id"))
    .addColumn("name", "text", (column) => column.notNull())
    .addColumn("state", "text", (column) => column.notNull())
    .addColumn("slot", "integer", (column) => column.notNull().unique())
    .addColumn("template_id", "text")
    .addColumn("image_name", "text", (column) => column.notNull())
    .addColumn("image_hash", "text", (column) => column.notNull())
    .addColumn("cpus", "integer", (column) => column.notNull())
    .addColumn("memory_mib", "integer", (column) => column.notNull())
    .addColumn("disk_mib", "integer", (column) => column.notNull())
    .addColumn("env", "text", (column) => column.notNull())
    .addColumn("secret_names", "text", (column) => column.notNull())
    .addColumn("labels", "text", (column) => column.notNull())
    .addColumn("keep_hot", "integer", (column) => column.notNull())
    .addColumn("allow_cold", "integer", (column) => column.notNull())
    .addColumn("created_at", "text", (column) => column.notNull())
    .addUniqueConstraint("sandboxes_user_name", ["user_id", "name"])
    .execute()

  await db.schema
    .createTable("secrets")
    .addColumn("user_id", "text", (column) => column.notNull().references("users.id").onDelete("cascade"))
    .addColumn("name", "text", (column) => column.notNull())
    .addColumn("ciphertext", "blob", (column) => column.notNull())
    .addColumn("created_at", "text", (column) => column.notNull())
    .addColumn("updated_at", "text", (column) => column.notNull())
    .addPrimaryKeyConstraint("secrets_user_name", ["user_id", "name"])
    .execute()

  await db.schema
    .createTable("published_ports")
    .addColumn("id", "text", (column) => column.primaryKey())
    .addColumn("sandbox_id", "text", (column) =>
      column.notNull().references("sandboxes.id").onDelete("cascade"),
    )
    .addColumn("port", "integer", (column) => column.notNull())
    .addColumn("alias", "text", (column) => column.notNull().unique())
    .addColumn("created_at", "text", (column) => column.notNull())
    .addUniqueConstraint("published_ports_sandbox_port", ["sandbox_id", "port"])
    .execute()
}
