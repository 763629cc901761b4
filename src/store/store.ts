/** What outlives the daemon: users and sandboxes. The only folder that speaks SQL. */

import { mkdirSync } from "node:fs"
import { join } from "node:path"
import { Kysely } from "kysely"
import { type Migration, Migrator } from "kysely/migration"
import * as start from "./migrations/0001-start.ts"
import { Sandboxes } from "./sandboxes.ts"
import type { Schema } from "./schema.ts"
import { sqliteDialect } from "./sqlite.ts"
import { Users } from "./users.ts"

const migrations: Record<string, Migration> = { "0001-start": start }

export type Store = {
  users: Users
  sandboxes: Sandboxes
  close(): Promise<void>
}

/** Opens the database of a data directory, making both if they are missing. `memory: true` is for tests. */
export async function openStore(options: { dataDir: string } | { memory: true }): Promise<Store> {
  let path = ":memory:"
  if ("dataDir" in options) {
    mkdirSync(options.dataDir, { recursive: true, mode: 0o700 })
    path = join(options.dataDir, "bhatti.db")
  }
  const db = new Kysely<Schema>({ dialect: sqliteDialect(path) })
  const migrator = new Migrator({ db, provider: { getMigrations: async () => migrations } })
  const { error } = await migrator.migrateToLatest()
  if (error) {
    await db.destroy()
    throw error
  }
  return {
    users: new Users(db),
    sandboxes: new Sandboxes(db),
    close: () => db.destroy(),
  }
}
