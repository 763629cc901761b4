/** Disk quotas of users, and the measured disk use of each sandbox. */

import type { Kysely } from "kysely"

export async function up(db: Kysely<unknown>): Promise<void> {
  for (const [table, column] of [
    ["users", "max_disk_mib"],
    ["sandboxes", "used_mib"],
  ] as const) {
    await db.schema
      .alterTable(table)
      .addColumn(column, "integer", (definition) => definition.notNull().defaultTo(0))
      .execute()
  }
}
