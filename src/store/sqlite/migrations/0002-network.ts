/** Adds the network policy of a sandbox and the address that its guest was given. */

import { type Kysely, sql } from "kysely"

const reachesTheInternet = JSON.stringify({ default: "public", allow_hosts: [], allow_cidrs: [] })

export async function up(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .alterTable("sandboxes")
    .addColumn("net_policy", "text", (column) => column.notNull().defaultTo(sql.lit(reachesTheInternet)))
    .execute()
  await db.schema.alterTable("sandboxes").addColumn("address", "text").execute()
}
