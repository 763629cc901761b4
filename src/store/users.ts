/** Users, their limits and their keys. A key is shown once, when it is made; the store keeps only its hash. */

import { AppError } from "@bhatti/contract/errors"
import type { EventType } from "@bhatti/contract/event"
import { apiKeyPattern } from "@bhatti/contract/limits"
import { UserId } from "@bhatti/contract/sandbox"
import { User, UserLimits, UserName } from "@bhatti/contract/user"
import { type Kysely, sql } from "kysely"
import "@bhatti/contract/wording"
import { diskUsedMib } from "./disk-use.ts"
import type { Events } from "./events.ts"
import type { Schema, UserRow } from "./schema.ts"
import { isUniqueViolation } from "./sqlite.ts"

/** The account behind a request. */
export type Account = {
  id: UserId
  name: string
  maxSandboxes: number
  maxCpus: number
  maxMemoryMib: number
  /** Quota for all its sandboxes and snapshots together; 0: none. */
  maxDiskMib: number
  /** Throws if the request's key is no longer valid. Call it after a wait, before acting. */
  confirm?: () => Promise<unknown>
}

export function hashKey(key: string): string {
  return new Bun.CryptoHasher("sha256").update(key).digest("hex")
}

/** Also the error of a running request whose user is deleted. */
export function noLongerValid(): AppError {
  return new AppError("unauthenticated", "the API key is not valid any more", {
    hint: "it was replaced; take the new one with: bhatti setup",
  })
}

export function newKey(): string {
  return `bht_${randomHex(32)}`
}

function randomHex(bytes: number): string {
  return Buffer.from(crypto.getRandomValues(new Uint8Array(bytes))).toString("hex")
}

export class Users {
  readonly #db: Kysely<Schema>
  readonly #events: Events

  constructor(db: Kysely<Schema>, events: Events) {
    this.#db = db
    this.#events = events
  }

  async create(input: { name: string } & Partial<UserLimits>): Promise<{ user: User; key: string }> {
    const { name: givenName, ...givenLimits } = input
    const name = parse(UserName, givenName)
    const limits = parse(UserLimits, givenLimits)
    const key = newKey()
    const row: UserRow = {
      id: `usr_${randomHex(4)}`,
      name,
      key_hash: hashKey(key),
      max_sandboxes: limits.max_sandboxes,
      max_cpus: limits.max_cpus,
      max_memory_mib: limits.max_memory_mb,
      max_disk_mib: limits.max_disk_mb,
      created_at: new Date().toISOString(),
    }
    try {
      await this.#db.insertInto("users").values(row).execute()
    } catch (error) {
      if (!isUniqueViolation(error, "users.name")) throw error
      throw new AppError("conflict", `a user named "${name}" exists already`, {
        hint: `bhatti user rotate-key ${name}`,
      })
    }
    await this.#record("user.created", row)
    return { user: toUser(row, { sandboxes: 0, diskUsedMib: 0 }), key }
  }

  async list(): Promise<User[]> {
    const rows = await this.#db
      .selectFrom("users")
      .selectAll()
      .select((eb) =>
        eb
          .selectFrom("sandboxes")
          .whereRef("sandboxes.user_id", "=", "users.id")
          .select(eb.fn.countAll<number>().as("count"))
          .as("sandboxes"),
      )
      .select(diskUsedMib(sql.ref("users.id")).as("disk_used_mib"))
      .orderBy("created_at")
      .execute()
    return rows.map((row) =>
      toUser(row, { sandboxes: Number(row.sandboxes ?? 0), diskUsedMib: Number(row.disk_used_mib) }),
    )
  }

  /** Changes the given limits only. Existing sandboxes stay, even above a lower limit. */
  async edit(name: string, changes: Partial<UserLimits>): Promise<User> {
    const user = (await this.list()).find((one) => one.name === name)
    if (!user) throw noUser(name)
    const { max_sandboxes, max_cpus, max_memory_mb, max_disk_mb } = parse(UserLimits, {
      max_sandboxes: user.max_sandboxes,
      max_cpus: user.max_cpus,
      max_memory_mb: user.max_memory_mb,
      max_disk_mb: user.max_disk_mb,
      ...changes,
    })
    await this.#db
      .updateTable("users")
      .set({ max_sandboxes, max_cpus, max_memory_mib: max_memory_mb, max_disk_mib: max_disk_mb })
      .where("name", "=", name)
      .execute()
    await this.#record("user.edited", user)
    return { ...user, max_sandboxes, max_cpus, max_memory_mb, max_disk_mb }
  }

  /** The old key is invalid as soon as this returns; `core/keys.ts` ends the requests that use it. */
  async rotateKey(name: string): Promise<{ user: User; key: string }> {
    const key = newKey()
    const changed = await this.#db
      .updateTable("users")
      .set({ key_hash: hashKey(key) })
      .where("name", "=", name)
      .executeTakeFirst()
    if (changed.numUpdatedRows === 0n) throw noUser(name)
    const user = (await this.list()).find((one) => one.name === name)
    if (!user) throw noUser(name)
    await this.#record("user.key_rotated", user)
    return { user, key }
  }

  /** Refused while the user has sandboxes or snapshots. */
  async remove(name: string): Promise<void> {
    const before = (await this.list()).find((one) => one.name === name)
    const removed = await this.#db
      .deleteFrom("users")
      .where("name", "=", name)
      .where(sql<boolean>`not exists (select 1 from sandboxes where sandboxes.user_id = users.id)`)
      .where(sql<boolean>`not exists (select 1 from snapshots where snapshots.user_id = users.id)`)
      .executeTakeFirst()
    if (removed.numDeletedRows > 0n) return this.#record("user.deleted", before)
    const user = (await this.list()).find((one) => one.name === name)
    if (!user) throw noUser(name)
    if (user.sandboxes === 0) {
      throw new AppError("conflict", `user "${name}" has snapshots`, {
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

  /** Records operators' commands, which run without a daemon; a failure to record does not undo the command. */
  async #record(type: EventType, user: { id: string; name: string } | undefined): Promise<void> {
    const record = {
      id: Bun.randomUUIDv7(),
      at: new Date().toISOString(),
      type,
      userId: user?.id ?? null,
      sandboxId: null,
      sandboxName: null,
      meta: { by: "operator", user: user?.name ?? null },
    }
    await this.#events.add([record]).catch(() => undefined)
  }

  /** Finds the account of a key. The database looks it up by hash, so the timing reveals nothing about the key. */
  async findByKey(key: string): Promise<Account | undefined> {
    if (!apiKeyPattern.test(key)) return undefined
    const row = await this.#db
      .selectFrom("users")
      .selectAll()
      .where("key_hash", "=", hashKey(key))
      .executeTakeFirst()
    return row && toAccount(row)
  }

  /** Hashes of all valid keys. */
  async keyHashes(): Promise<Set<string>> {
    const rows = await this.#db.selectFrom("users").select("key_hash").execute()
    return new Set(rows.map(({ key_hash }) => key_hash))
  }
}

function noUser(name: string): AppError {
  return new AppError("not_found", `no user named "${name}"`, { hint: "bhatti user list" })
}

function toAccount(row: UserRow): Account {
  return {
    id: UserId.parse(row.id),
    name: row.name,
    maxSandboxes: row.max_sandboxes,
    maxCpus: row.max_cpus,
    maxMemoryMib: row.max_memory_mib,
    maxDiskMib: row.max_disk_mib,
  }
}

function toUser(row: UserRow, counted: { sandboxes: number; diskUsedMib: number }): User {
  return User.parse({
    id: row.id,
    name: row.name,
    max_sandboxes: row.max_sandboxes,
    max_cpus: row.max_cpus,
    max_memory_mb: row.max_memory_mib,
    max_disk_mb: row.max_disk_mib,
    created_at: row.created_at,
    sandboxes: counted.sandboxes,
    disk_used_mb: counted.diskUsedMib,
  })
}

/** Operators call this store directly, so their input is checked here. */
function parse<T>(
  schema: {
    safeParse(
      value: unknown,
    ):
      | { success: true; data: T }
      | { success: false; error: { issues: { path: PropertyKey[]; message: string }[] } }
  },
  value: unknown,
): T {
  const result = schema.safeParse(value)
  if (result.success) return result.data
  const [issue] = result.error.issues
  const field = issue?.path.join(".") ?? ""
  throw new AppError("invalid", field === "" ? (issue?.message ?? "invalid") : `${field}: ${issue?.message}`)
}
