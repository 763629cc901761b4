/** What outlives the daemon: users, sandboxes, secrets, published ports, snapshots, events. The only folder that speaks SQL. */

import { mkdirSync } from "node:fs"
import { join } from "node:path"
import { generateX25519Identity } from "age-encryption"
import { Kysely, sql } from "kysely"
import { type Migration, Migrator } from "kysely/migration"
import { AppError } from "../contract/errors.ts"
import { Events } from "./events.ts"
import * as start from "./migrations/0001-start.ts"
import * as network from "./migrations/0002-network.ts"
import * as snapshotsAndEvents from "./migrations/0003-snapshots-and-events.ts"
import { PublishedPorts } from "./published-ports.ts"
import { Sandboxes } from "./sandboxes.ts"
import type { Schema } from "./schema.ts"
import { Secrets } from "./secrets.ts"
import { Snapshots } from "./snapshots.ts"
import { sqliteDialect } from "./sqlite.ts"
import { Users } from "./users.ts"
import { Vault } from "./vault.ts"

const migrations: Record<string, Migration> = {
  "0001-start": start,
  "0002-network": network,
  "0003-snapshots-and-events": snapshotsAndEvents,
}

export type Store = {
  users: Users
  sandboxes: Sandboxes
  secrets: Secrets
  publishedPorts: PublishedPorts
  snapshots: Snapshots
  events: Events
  /** Another number than before: another process has written to the database. */
  foreignVersion(): Promise<number>
  close(): Promise<void>
}

/** Opens the database of a data directory, making both if they are missing. `memory: true` is for tests. */
export async function openStore(options: { dataDir: string } | { memory: true }): Promise<Store> {
  let path = ":memory:"
  let vault: Vault
  if ("dataDir" in options) {
    mkdirSync(options.dataDir, { recursive: true, mode: 0o700 })
    path = join(options.dataDir, "bhatti.db")
    vault = await Vault.open(join(options.dataDir, "age.key"))
  } else {
    vault = new Vault(await generateX25519Identity())
  }
  const db = new Kysely<Schema>({ dialect: sqliteDialect(path) })
  const migrator = new Migrator({ db, provider: { getMigrations: async () => migrations } })
  const { error } = await migrator.migrateToLatest()
  if (error) {
    await db.destroy()
    throw new AppError("unavailable", `cannot bring the database ${path} up to date`, {
      cause: error,
      hint: "it may be locked, damaged, or made by a later bhatti; sandboxes were not touched",
      retryable: false,
    })
  }
  const events = new Events(db)
  return {
    users: new Users(db, events),
    sandboxes: new Sandboxes(db),
    secrets: new Secrets(db, vault),
    publishedPorts: new PublishedPorts(db),
    snapshots: new Snapshots(db),
    events,
    async foreignVersion() {
      const { rows } = await sql<{ data_version: number }>`pragma data_version`.execute(db)
      return rows[0]?.data_version ?? 0
    },
    close: () => db.destroy(),
  }
}
