/**
 * The persistent state: users, sandboxes, secrets, published ports, snapshots, images, tasks, events. The only folder
 * that contains SQL.
 */

import { existsSync, mkdirSync } from "node:fs"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { Kysely } from "kysely"
import { Migrator } from "kysely/migration"
import { syncPath } from "../lib/durable.ts"
import { errorCodeOf } from "../lib/error-code.ts"
import { ApiKeys } from "./api-keys.ts"
import { type Copied, type Copy, fitToBackup } from "./backup.ts"
import { belongingOf, databasePath, markNote, refusal } from "./belonging.ts"
import { BuildCache } from "./build-cache.ts"
import { countChanges, readInstallation } from "./changes.ts"
import { isCopyDue, makeCopy, writeCopy } from "./copies.ts"
import { DiskUse } from "./disk-use.ts"
import { Events } from "./events.ts"
import { Images } from "./images.ts"
import { Lifetimes } from "./lifetimes.ts"
import { type Mark, readMark, writeMark } from "./mark.ts"
import { PublishedPorts } from "./published-ports.ts"
import { Recovery } from "./recovery.ts"
import { RegistryLogins } from "./registry-logins.ts"
import { SandboxTokens } from "./sandbox-tokens.ts"
import { Sandboxes } from "./sandboxes.ts"
import type { Schema } from "./schema.ts"
import { Secrets } from "./secrets.ts"
import { Snapshots } from "./snapshots.ts"
import { SocketTickets } from "./socket-tickets.ts"
import { sqliteDialect } from "./sqlite/dialect.ts"
import { migrations } from "./sqlite/migrations.ts"
import { foreignVersion } from "./sqlite/queries.ts"
import { Tasks } from "./tasks.ts"
import { TemplateUse } from "./template-use.ts"
import { Users } from "./users.ts"
import { Vault } from "./vault.ts"

export type Store = {
  users: Users
  apiKeys: ApiKeys
  sandboxes: Sandboxes
  lifetimes: Lifetimes
  secrets: Secrets
  publishedPorts: PublishedPorts
  snapshots: Snapshots
  images: Images
  tasks: Tasks
  buildCache: BuildCache
  registryLogins: RegistryLogins
  socketTickets: SocketTickets
  sandboxTokens: SandboxTokens
  diskUse: DiskUse
  templateUse: TemplateUse
  events: Events
  recovery: Recovery
  /** Notes for the operator about the database's state when it was opened. */
  notes: readonly string[]
  /** Changes whenever another process writes to the database. */
  foreignVersion(): Promise<number>
  /** The database's id, and the number of changes to sandboxes, their owners and their access. */
  installation(): Promise<Mark>
  /** Updates the data directory's mark to the database's durable state. */
  writeMark(): Promise<void>
  /** Makes the daily copy of the database if it is due. */
  copyDaily(): Promise<void>
  /**
   * Writes a copy of the current database for a backup, reduced to what was copied. `mark`: content for the backup's
   * mark file; `gone`: copied sandboxes and snapshots that no longer exist.
   */
  backUp(path: string, copied: Copied): Promise<{ mark: string; gone: Copy[] }>
  close(): Promise<void>
}

export type StoreOptions =
  /** With `isRecovery`, the recovery has checked the database itself, and writes the mark at its end. */
  { dataDir: string; isRecovery?: boolean; dropSecrets?: boolean } | { memory: true }

/**
 * Opens the database of a data directory; creates both if missing. Refuses a database of another directory, and then
 * changes nothing. `memory: true` is for tests.
 */
export async function openStore(options: StoreOptions): Promise<Store> {
  if (!("dataDir" in options))
    return await fill(await openDatabase(":memory:"), undefined, await Vault.fresh(), [])
  const { dataDir } = options
  mkdirSync(dataDir, { recursive: true, mode: 0o700 })
  const notes: string[] = []
  if (!options.isRecovery) {
    const belonging = belongingOf(dataDir)
    if (belonging.kind === "misfit") throw refusal(dataDir, belonging.fault)
    if (belonging.kind === "fits" && belonging.markProblem && existsSync(join(dataDir, "database-copies")))
      notes.push(markNote(dataDir, belonging.markProblem))
  }
  await using undo = new AsyncDisposableStack()
  const db = await openDatabase(databasePath(dataDir), dataDir)
  undo.defer(() => db.destroy())
  if (!options.isRecovery) await refuseDamagedRows(db, dataDir)
  const vault = await openVault(db, dataDir, options.dropSecrets ?? false)
  const store = await fill(db, dataDir, vault, notes)
  if (options.isRecovery) {
    undo.move()
    return { ...store, close: () => db.destroy() }
  }
  try {
    await store.writeMark()
  } catch (error) {
    // A mark that lags behind is harmless; the next change rewrites it.
    if (errorCodeOf(error) !== "ENOSPC") throw error
  }
  undo.move()
  return store
}

async function fill(
  db: Kysely<Schema>,
  dataDir: string | undefined,
  vault: Vault,
  notes: readonly string[],
): Promise<Store> {
  const events = new Events(db)
  const mark = async () => {
    if (dataDir === undefined) return
    const now = await readInstallation(db)
    const known = readMark(dataDir)
    if (typeof known === "object" && known.id === now.id && known.counter >= now.counter) return
    await makeDurable(dataDir)
    await writeMark(dataDir, now)
  }
  return {
    users: new Users(db),
    apiKeys: new ApiKeys(db),
    sandboxes: new Sandboxes(db),
    lifetimes: await Lifetimes.open(db),
    secrets: new Secrets(db, vault),
    publishedPorts: new PublishedPorts(db),
    snapshots: new Snapshots(db),
    images: new Images(db),
    tasks: new Tasks(db),
    buildCache: new BuildCache(db),
    registryLogins: new RegistryLogins(db, vault),
    socketTickets: new SocketTickets(db),
    sandboxTokens: new SandboxTokens(db, vault),
    diskUse: new DiskUse(db),
    templateUse: new TemplateUse(db),
    events,
    recovery: new Recovery(db),
    notes,
    foreignVersion: () => foreignVersion(db),
    installation: () => readInstallation(db),
    writeMark: mark,
    async copyDaily() {
      if (dataDir !== undefined && isCopyDue(dataDir, Date.now())) await makeCopy(db, dataDir, "daily")
    },
    async backUp(path, copied) {
      await writeCopy(db, path)
      const copy = new Kysely<Schema>({ dialect: sqliteDialect(path) })
      try {
        return await fitToBackup(copy, copied)
      } finally {
        await copy.destroy()
      }
    },
    async close() {
      try {
        await mark()
      } finally {
        await db.destroy()
      }
    },
  }
}

async function openDatabase(path: string, dataDir?: string): Promise<Kysely<Schema>> {
  const db = new Kysely<Schema>({ dialect: sqliteDialect(path) })
  try {
    const migrator = new Migrator({ db, provider: { getMigrations: async () => migrations } })
    if (dataDir !== undefined) await copyBeforeMigration(migrator, db, dataDir)
    const { error } = await migrator.migrateToLatest()
    if (error) throw error
    await countChanges(db)
    return db
  } catch (cause) {
    await db.destroy()
    if (cause instanceof AppError) throw cause
    throw new AppError("unavailable", `cannot bring the database ${path} up to date`, {
      cause,
      hint: "it may be locked, damaged, or made by a later bhatti; sandboxes were not touched",
      retryable: false,
    })
  }
}

/** An intact file can contain an unreadable row: damage that SQLite does not detect. */
async function refuseDamagedRows(db: Kysely<Schema>, dataDir: string): Promise<void> {
  const [damaged] = await new Recovery(db).damagedRows()
  if (damaged) throw refusal(dataDir, "damaged")
}

/** Copies an existing database. No migration begins without the copy. */
async function copyBeforeMigration(migrator: Migrator, db: Kysely<Schema>, dataDir: string): Promise<void> {
  const all = await migrator.getMigrations()
  const next = all.find(({ executedAt }) => executedAt === undefined)
  if (next === undefined || !all.some(({ executedAt }) => executedAt !== undefined)) return
  try {
    await makeCopy(db, dataDir, `before-${next.name}`)
  } catch (cause) {
    throw new AppError("unavailable", "the database cannot be copied, so it is not brought up to date", {
      cause,
      hint: `make room in ${dataDir}; the copy is the way back if the update fails`,
      retryable: false,
    })
  }
}

async function openVault(db: Kysely<Schema>, dataDir: string, dropSecrets: boolean): Promise<Vault> {
  if (dropSecrets) {
    await db.deleteFrom("secrets").execute()
    await db.deleteFrom("registry_logins").execute()
  }
  const { recipient } = await db.selectFrom("installation").select("recipient").executeTakeFirstOrThrow()
  const secret = await db.selectFrom("secrets").select("name").limit(1).executeTakeFirst()
  const login = await db.selectFrom("registry_logins").select("host").limit(1).executeTakeFirst()
  const isNeeded = secret !== undefined || login !== undefined
  const vault = await Vault.open(join(dataDir, "age.key"), { recipient, isNeeded })
  if (vault.recipient !== recipient)
    await db.updateTable("installation").set({ recipient: vault.recipient }).execute()
  return vault
}

/** Makes committed changes survive a power cut before the mark counts them. */
async function makeDurable(dataDir: string): Promise<void> {
  const log = `${databasePath(dataDir)}-wal`
  if (existsSync(log)) await syncPath(log)
}
