/** The build cache: disks after steps of builds, and the disks of images that builds have ended with. */

import type { Kysely } from "kysely"

export async function up(db: Kysely<unknown>): Promise<void> {
  // Without a reference to users: the files of a deleted user's steps are removed by their rows.
  await db.schema
    .createTable("build_steps")
    .addColumn("id", "text", (column) => column.primaryKey())
    .addColumn("user_id", "text", (column) => column.notNull())
    .addColumn("key", "text", (column) => column.notNull())
    .addColumn("state", "text", (column) => column.notNull())
    .addColumn("template_id", "text", (column) => column.notNull())
    .addColumn("image_name", "text", (column) => column.notNull())
    .addColumn("image_hash", "text", (column) => column.notNull())
    .addColumn("disk_mib", "integer", (column) => column.notNull())
    .addColumn("bytes", "integer", (column) => column.notNull())
    .addColumn("used_at", "text", (column) => column.notNull())
    .execute()
  await db.schema.createIndex("build_steps_key").on("build_steps").columns(["user_id", "key"]).execute()

  await db.schema
    .createTable("build_results")
    .addColumn("user_id", "text", (column) => column.notNull())
    .addColumn("key", "text", (column) => column.notNull())
    .addColumn("disk_name", "text", (column) => column.notNull())
    .addPrimaryKeyConstraint("build_results_user_key", ["user_id", "key"])
    .execute()
}
