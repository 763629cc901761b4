/** Users, their limits and their keys. A key is shown once, when it is made; the store keeps only its hash. */

import { AppError } from "@bhatti/contract/errors"
import { UserId } from "@bhatti/contract/ids"
import { apiKeyPattern, limits } from "@bhatti/contract/limits"
import { type Kysely, sql } from "kysely"
import { randomHex } from "../lib/random-hex.ts"
import { diskUsedMib } from "./disk-use.ts"
import type { Schema, UserRow } from "./schema.ts"
import type { Scope } from "./scope.ts"
import { refusedBy } from "./sqlite/constraints.ts"
import { among } from "./sqlite/queries.ts"

export type UserLimits = {
  maxSandboxes: number
  /** Per sandbox, as the memory. */
  maxCpus: number
  maxMemoryMib: number
  /** Quota for all its sandboxes and snapshots together; 0: none. */
  maxDiskMib: number
}

export const defaultLimits: UserLimits = {
  maxSandboxes: limits.userSandboxesDefault,
  maxCpus: limits.userCpusDefault,
  maxMemoryMib: limits.userMemoryMibDefault,
  maxDiskMib: limits.userDiskMibDefault,
}

const rangeOf: { readonly [Name in keyof UserLimits]: readonly [min: number, max: number] } = {
  maxSandboxes: [0, limits.userSandboxesMax],
  maxCpus: [1, limits.cpusMax],
  maxMemoryMib: [limits.memoryMibMin, limits.memoryMibMax],
  maxDiskMib: [0, limits.userDiskMibMax],
}

export type UserRecord = UserLimits & {
  id: UserId
  name: string
  createdAt: string
  sandboxes: number
  /** As last measured by the daemon. */
  diskUsedMib: number
}

/** The account behind a request. */
export type Account = UserLimits & {
  id: UserId
  name: string
  /** The rights of a key that may do less than its user; undefined: all. */
  scope?: Scope
  /** Throws if the request's key is no longer valid. Call it after a wait, before acting. */
  confirm?: () => Promise<unknown>
}

export function hashKey(key: string): string {
  return new Bun.CryptoHasher("sha256").update(key).digest("hex")
}

/** Also the error of a running request whose user is deleted. */
export function noLongerValid(): AppError {
  return new AppError("unauthenticated", "the API key is not valid any more", {
    hint: "it was replaced or revoked, or has expired",
  })
}

export function newKey(): string {
  return `bht_${randomHex(32)}`
}

export class Users {
  readonly #db: Kysely<Schema>

  constructor(db: Kysely<Schema>) {
    this.#db = db
  }

  async create(input: { name: string } & Partial<UserLimits>): Promise<{ user: UserRecord; key: string }> {
    const { name, ...givenLimits } = input
    if (!limits.userNamePattern.test(name)) {
      throw new AppError("invalid", "a user name has 1 to 63 letters, digits, dots, underscores or hyphens")
    }
    const key = newKey()
    const row: UserRow = {
      id: `usr_${randomHex(4)}`,
      name,
      key_hash: hashKey(key),
      ...limitColumns(checkLimits({ ...defaultLimits, ...givenLimits })),
      created_at: new Date().toISOString(),
    }
    const insert = this.#db.insertInto("users").values(row).execute()
    const subject = { kind: "user", name } as const
    const message = `a user named "${name}" exists already`
    await refusedBy("users_name", insert, () => new AppError("conflict", message, { subject }))
    return { user: { ...toAccount(row), createdAt: row.created_at, sandboxes: 0, diskUsedMib: 0 }, key }
  }

  async listForOperator(): Promise<UserRecord[]> {
    return (await this.#selectRecords().orderBy("created_at").execute()).map(toRecord)
  }

  async nameOf(id: UserId): Promise<string | undefined> {
    const row = await this.#db.selectFrom("users").select("name").where("id", "=", id).executeTakeFirst()
    return row?.name
  }

  /** Returns those of the ids that are users. */
  async existing(ids: Iterable<string>): Promise<Set<string>> {
    const rows = await this.#db.selectFrom("users").select("id").where("id", "in", among(ids)).execute()
    return new Set(rows.map(({ id }) => id))
  }

  async find(name: string): Promise<UserRecord | undefined> {
    const row = await this.#selectRecords().where("name", "=", name).executeTakeFirst()
    return row && toRecord(row)
  }

  #selectRecords() {
    return this.#db
      .selectFrom("users")
      .selectAll()
      .select((eb) =>
        eb
          .selectFrom("sandboxes")
          .whereRef("sandboxes.user_id", "=", "users.id")
          .select(eb.fn.countAll().as("count"))
          .as("sandboxes"),
      )
      .select(diskUsedMib(sql.ref("users.id")).as("disk_used_mib"))
  }

  /** Changes the given limits only. Existing sandboxes stay, even above a lower limit. */
  async edit(name: string, changes: Partial<UserLimits>): Promise<UserRecord> {
    const user = await this.find(name)
    if (!user) throw noUser(name)
    const edited = { ...user, ...changes }
    checkLimits(edited)
    await this.#db
      .updateTable("users")
      // A column that is not given may be changed by another edit at the same time.
      .set(({ ref }) => ({
        max_sandboxes: changes.maxSandboxes ?? ref("max_sandboxes"),
        max_cpus: changes.maxCpus ?? ref("max_cpus"),
        max_memory_mib: changes.maxMemoryMib ?? ref("max_memory_mib"),
        max_disk_mib: changes.maxDiskMib ?? ref("max_disk_mib"),
      }))
      .where("name", "=", name)
      .execute()
    return edited
  }

  /**
   * The old key, and all that were made with it, are invalid as soon as this returns; `core/keys.ts` ends the requests
   * that use them.
   */
  async rotateKey(name: string): Promise<{ user: UserRecord; key: string }> {
    const key = newKey()
    await this.#db.transaction().execute(async (db) => {
      const changed = await db
        .updateTable("users")
        .set({ key_hash: hashKey(key) })
        .where("name", "=", name)
        .returning("id")
        .executeTakeFirst()
      if (!changed) throw noUser(name)
      await db.deleteFrom("api_keys").where("user_id", "=", changed.id).execute()
    })
    const user = await this.find(name)
    if (!user) throw noUser(name)
    return { user, key }
  }

  /** Refused while the user has sandboxes, snapshots or images. */
  async remove(name: string): Promise<void> {
    const removed = await this.#db
      .deleteFrom("users")
      .where("name", "=", name)
      .where(sql<boolean>`not exists (select 1 from sandboxes where sandboxes.user_id = users.id)`)
      .where(sql<boolean>`not exists (select 1 from snapshots where snapshots.user_id = users.id)`)
      .where(sql<boolean>`not exists (select 1 from images where images.user_id = users.id)`)
      .executeTakeFirst()
    if (removed.numDeletedRows > 0n) return
    const user = await this.find(name)
    if (!user) throw noUser(name)
    if (user.sandboxes === 0) {
      throw new AppError("conflict", `user "${name}" has snapshots or images`, {
        hint: "delete them first, with that user's key",
      })
    }
    throw new AppError(
      "conflict",
      `user "${name}" has ${user.sandboxes} sandbox${user.sandboxes === 1 ? "" : "es"}`,
      {
        hint: "destroy them first, with that user's key",
      },
    )
  }

  /** Finds the account of a key. The database looks it up by hash, so the timing reveals nothing about the key. */
  async findByKey(key: string): Promise<Account | undefined> {
    return apiKeyPattern.test(key) ? await this.findByKeyHash(hashKey(key)) : undefined
  }

  async findByKeyHash(hash: string): Promise<Account | undefined> {
    const row = await this.#db.selectFrom("users").selectAll().where("key_hash", "=", hash).executeTakeFirst()
    return row && toAccount(row)
  }

  /** Returns those of the hashes whose keys are valid. */
  async validHashes(hashes: Iterable<string>): Promise<Set<string>> {
    const rows = await this.#db
      .selectFrom("users")
      .select("key_hash")
      .where("key_hash", "in", among(hashes))
      .execute()
    return new Set(rows.map(({ key_hash }) => key_hash))
  }
}

function toRecord(
  row: UserRow & { sandboxes: string | number | bigint | null; disk_used_mib: number },
): UserRecord {
  return {
    ...toAccount(row),
    createdAt: row.created_at,
    sandboxes: Number(row.sandboxes),
    diskUsedMib: Number(row.disk_used_mib),
  }
}

function noUser(name: string): AppError {
  return new AppError("not_found", `no user named "${name}"`, { subject: { kind: "user", name } })
}

export function toAccount(row: UserRow): Account {
  return {
    id: UserId.parse(row.id),
    name: row.name,
    maxSandboxes: row.max_sandboxes,
    maxCpus: row.max_cpus,
    maxMemoryMib: row.max_memory_mib,
    maxDiskMib: row.max_disk_mib,
  }
}

export function limitColumns(of: UserLimits) {
  const { maxSandboxes, maxCpus, maxMemoryMib, maxDiskMib } = of
  return {
    max_sandboxes: maxSandboxes,
    max_cpus: maxCpus,
    max_memory_mib: maxMemoryMib,
    max_disk_mib: maxDiskMib,
  }
}

/** Operators call this store directly, so their input is checked here. */
function checkLimits(asked: UserLimits): UserLimits {
  for (const [name, [min, max]] of Object.entries(rangeOf)) {
    const value = asked[name as keyof UserLimits]
    if (Number.isSafeInteger(value) && value >= min && value <= max) continue
    throw new AppError("invalid", `${name}: give a whole number from ${min} to ${max}`)
  }
  return asked
}
