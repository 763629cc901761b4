/** Users' secrets. Values leave this file decrypted only through `reveal`, for a sandbox that was created with them. */

import { AppError } from "@bhatti/contract/errors"
import type { UserId } from "@bhatti/contract/ids"
import { limits } from "@bhatti/contract/limits"
import type { Kysely } from "kysely"
import type { Schema } from "./schema.ts"
import { countOf, withUserLocked } from "./user-lock.ts"
import type { Vault } from "./vault.ts"

export type SecretRecord = { name: string; createdAt: string; updatedAt: string }

export class Secrets {
  readonly #db: Kysely<Schema>
  readonly #vault: Vault

  constructor(db: Kysely<Schema>, vault: Vault) {
    this.#db = db
    this.#vault = vault
  }

  async set(userId: UserId, name: string, value: string): Promise<SecretRecord> {
    const now = new Date().toISOString()
    const ciphertext = await this.#vault.encrypt(value)
    return await withUserLocked(this.#db, userId, async (db, user) => {
      const isNew = !(await db
        .selectFrom("secrets")
        .select("name")
        .where("user_id", "=", userId)
        .where("name", "=", name)
        .executeTakeFirst())
      if (isNew && (await countOf(db, "secrets", user)) >= limits.secretsMax) {
        throw new AppError("limit_exceeded", `you have ${limits.secretsMax} secrets already`, {
          hint: "delete one of them",
          subject: { kind: "secret" },
        })
      }
      return await db
        .insertInto("secrets")
        .values({ user_id: userId, name, ciphertext, created_at: now, updated_at: now })
        .onConflict((on) => on.columns(["user_id", "name"]).doUpdateSet({ ciphertext, updated_at: now }))
        .returning(["name", "created_at as createdAt", "updated_at as updatedAt"])
        .executeTakeFirstOrThrow()
    })
  }

  async list(userId: UserId): Promise<SecretRecord[]> {
    return this.#db
      .selectFrom("secrets")
      .select(["name", "created_at as createdAt", "updated_at as updatedAt"])
      .where("user_id", "=", userId)
      .orderBy("name")
      .execute()
  }

  async remove(userId: UserId, name: string): Promise<void> {
    const removed = await this.#db
      .deleteFrom("secrets")
      .where("user_id", "=", userId)
      .where("name", "=", name)
      .executeTakeFirst()
    if (removed.numDeletedRows === 0n) throw noSecret(name)
  }

  /** Like `reveal`, but skips deleted secrets. */
  async revealExisting(userId: UserId, names: string[]): Promise<Record<string, string>> {
    const existing = new Set((await this.list(userId)).map(({ name }) => name))
    return this.reveal(
      userId,
      names.filter((name) => existing.has(name)),
    )
  }

  /** Returns the secrets' values; throws if one does not exist. */
  async reveal(userId: UserId, names: string[]): Promise<Record<string, string>> {
    if (names.length === 0) return {}
    const rows = await this.#db
      .selectFrom("secrets")
      .select(["name", "ciphertext"])
      .where("user_id", "=", userId)
      .where("name", "in", names)
      .execute()
    const missing = names.find((name) => !rows.some((row) => row.name === name))
    if (missing !== undefined) throw noSecret(missing)
    return Object.fromEntries(
      await Promise.all(
        rows.map(async (row) => [row.name, await this.#vault.decrypt(row.ciphertext)] as const),
      ),
    )
  }
}

function noSecret(name: string): AppError {
  return new AppError("not_found", `no secret named "${name}"`, { subject: { kind: "secret", name } })
}
