/**
 * Keys of a user that may do less than the user. The store keeps only a key's hash, and the database's clock decides
 * when one expires.
 */

import { AppError } from "@bhatti/contract/errors"
import type { UserId } from "@bhatti/contract/ids"
import { limits } from "@bhatti/contract/limits"
import { type Kysely, type Selectable, sql } from "kysely"
import { randomHex } from "../lib/random-hex.ts"
import type { ApiKeysTable, Schema } from "./schema.ts"
import { Scope } from "./scope.ts"
import { refusedBy } from "./sqlite/constraints.ts"
import { among, insertionOrder, nowSec } from "./sqlite/queries.ts"
import { countOf, withUserLocked } from "./user-lock.ts"
import { type Account, hashKey, newKey, toAccount } from "./users.ts"

export type ApiKeyRecord = {
  id: string
  name: string
  scope: Scope
  createdAt: string
  expiresAt: string | null
}

export class ApiKeys {
  readonly #db: Kysely<Schema>

  constructor(db: Kysely<Schema>) {
    this.#db = db
  }

  async add(
    userId: UserId,
    input: { name: string | undefined; scope: Scope; expiresInSec: number | undefined },
  ): Promise<{ record: ApiKeyRecord; key: string }> {
    const { scope, expiresInSec } = input
    const id = `key_${randomHex(8)}`
    const name = input.name ?? id
    const key = newKey()
    const row = await withUserLocked(this.#db, userId, async (db, user) => {
      if ((await countOf(db, "api_keys", user)) >= limits.keysMax) throw tooMany()
      const insert = db
        .insertInto("api_keys")
        .values(({ eb }) => ({
          ...{ id, name, user_id: userId, key_hash: hashKey(key), scope: JSON.stringify(Scope.parse(scope)) },
          expires_at: expiresInSec === undefined ? null : eb(nowSec, "+", Math.ceil(expiresInSec)),
          created_at: new Date().toISOString(),
        }))
        .returningAll()
        .executeTakeFirstOrThrow()
      const message = `a key named "${name}" exists already`
      return await refusedBy("api_keys_user_name", insert, () => new AppError("conflict", message))
    })
    return { record: toRecord(row), key }
  }

  /** With those that have expired. */
  async list(userId: UserId): Promise<ApiKeyRecord[]> {
    const rows = await this.#db
      .selectFrom("api_keys")
      .selectAll()
      .where("user_id", "=", userId)
      .orderBy("created_at")
      .orderBy(insertionOrder)
      .execute()
    return rows.map(toRecord)
  }

  /** Returns the removed key, or undefined if there is none of that id or name. */
  async remove(userId: UserId, nameOrId: string): Promise<ApiKeyRecord | undefined> {
    const own = await this.list(userId)
    const found = own.find(({ id }) => id === nameOrId) ?? own.find(({ name }) => name === nameOrId)
    if (!found) return undefined
    await this.#db.deleteFrom("api_keys").where("id", "=", found.id).execute()
    return found
  }

  /** Returns the account of a key that is valid now, with its rights. */
  async findAccount(hash: string): Promise<Account | undefined> {
    const key = await this.#valid().select("scope").where("key_hash", "=", hash).executeTakeFirst()
    if (!key) return undefined
    const user = await this.#db
      .selectFrom("users")
      .innerJoin("api_keys", "api_keys.user_id", "users.id")
      .selectAll("users")
      .where("api_keys.key_hash", "=", hash)
      .executeTakeFirst()
    return user && { ...toAccount(user), scope: Scope.parse(JSON.parse(key.scope)) }
  }

  async validHashes(hashes: Iterable<string>): Promise<string[]> {
    const rows = await this.#valid().select("key_hash").where("key_hash", "in", among(hashes)).execute()
    return rows.map(({ key_hash }) => key_hash)
  }

  #valid() {
    return this.#db.selectFrom("api_keys").where(sql<boolean>`(expires_at is null or expires_at > ${nowSec})`)
  }
}

function toRecord(row: Selectable<ApiKeysTable>): ApiKeyRecord {
  return {
    id: row.id,
    name: row.name,
    scope: Scope.parse(JSON.parse(row.scope)),
    createdAt: row.created_at,
    expiresAt: row.expires_at === null ? null : new Date(row.expires_at * 1000).toISOString(),
  }
}

function tooMany(): AppError {
  return new AppError("limit_exceeded", `you have ${limits.keysMax} keys already`, {
    hint: "revoke those that nobody uses",
  })
}
