/** Adds named snapshots, events, and each sandbox's own idle times and reason for its last boot. */

import type { Kysely } from "kysely"

export async function up(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable("snapshots")
    .addColumn("id", "text", (column) => column.primaryKey())
    .addColumn("user_id", "text", (column) => column.notNull().references("users.id"))
    .addColumn("name", "text", (column) => column.notNull())
    .addColumn("state", "text", (column) => column.notNull())
    .addColumn("source_id", "text", (column) => column.notNull())
    .addColumn("source_name", "text", (column) => column.notNull())
    .addColumn("template_id", "text", (column) => column.notNull())
    .addColumn("image_name", "text", (column) => column.notNull())
    .addColumn("image_hash", "text", (column) => column.notNull())
    .addColumn("cpus", "integer", (column) => column.notNull())
    .addColumn("memory_mib", "integer", (column) => column.notNull())
    .addColumn("disk_mib", "integer", (column) => column.notNull())
    .addColumn("inherited", "text", (column) => column.notNull())
    .addColumn("has_memory", "integer", (column) => column.notNull())
    .addColumn("bytes", "integer", (column) => column.notNull())
    .addColumn("created_at", "text", (column) => column.notNull())
    .addUniqueConstraint("snapshots_user_name", ["user_id", "name"])
    .execute()

  await db.schema
    .createTable("events")
    .addColumn("id", "text", (column) => column.primaryKey())
    .addColumn("at", "text", (column) => column.notNull())
    .addColumn("type", "text", (column) => column.notNull())
    .addColumn("user_id", "text")
    .addColumn("sandbox_id", "text")
    .addColumn("sandbox_name", "text")
    .addColumn("meta", "text", (column) => column.notNull())
    .execute()
  await db.schema.createIndex("events_user").on("events").columns(["user_id", "id"]).execute()
  await db.schema.createIndex("events_at").on("events").column("at").execute()

  for (const column of ["warm_after_sec", "cold_after_sec"]) {
    await db.schema.alterTable("sandboxes").addColumn(column, "real").execute()
  }
  await db.schema.alterTable("sandboxes").addColumn("boot_reason", "text").execute()
}
