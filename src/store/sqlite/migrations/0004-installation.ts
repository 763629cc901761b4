/** Adds the database's own id and its change counter. */

import { type Kysely, sql } from "kysely"
import { randomHex } from "../../../lib/random-hex.ts"

export async function up(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable("installation")
    .addColumn("id", "text", (column) => column.primaryKey())
    .addColumn("counter", "integer", (column) => column.notNull())
    /** Recipient that secrets are encrypted for; null until known. */
    .addColumn("recipient", "text")
    .execute()
  const id = `inst_${randomHex(8)}`
  await sql`insert into installation (id, counter) values (${id}, 1)`.execute(db)
}
