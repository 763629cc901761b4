/** The script that runs in a sandbox at each boot of its machine. */

import type { Kysely } from "kysely"

export async function up(db: Kysely<unknown>): Promise<void> {
  await db.schema.alterTable("sandboxes").addColumn("boot_script", "text").execute()
}
