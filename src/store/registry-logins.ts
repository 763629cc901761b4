/** Users' logins at registries, encrypted like secrets. They are decrypted only for a pull of their owner. */

import { AppError } from "@bhatti/contract/errors"
import type { UserId } from "@bhatti/contract/ids"
import { limits } from "@bhatti/contract/limits"
import type { Kysely } from "kysely"
import type { Schema } from "./schema.ts"
import { countOf, withUserLocked } from "./user-lock.ts"
import type { Vault } from "./vault.ts"

export type RegistryLogin = { host: string; username: string; createdAt: string }
export type RegistryCredential = { username: string; password: string }

export class RegistryLogins {
  readonly #db: Kysely<Schema>
  readonly #vault: Vault

  constructor(db: Kysely<Schema>, vault: Vault) {
    this.#db = db
    this.#vault = vault
  }

  async set(
    userId: UserId,
    host: string,
    { username, password }: RegistryCredential,
  ): Promise<RegistryLogin> {
    const ciphertext = await this.#vault.encrypt(password)
    return await withUserLocked(this.#db, userId, async (db, user) => {
      if (
        !(await this.#row(db, userId, host)) &&
        (await countOf(db, "registry_logins", user)) >= limits.registryLoginsMax
      ) {
        throw new AppError("limit_exceeded", `you have ${limits.registryLoginsMax} logins already`, {
          hint: "log out of one of them",
          subject: { kind: "registry" },
        })
      }
      const created_at = new Date().toISOString()
      await db
        .insertInto("registry_logins")
        .values({ user_id: userId, host, username, ciphertext, created_at })
        .onConflict((on) => on.columns(["user_id", "host"]).doUpdateSet({ username, ciphertext, created_at }))
        .execute()
      return { host, username, createdAt: created_at }
    })
  }

  async list(userId: UserId): Promise<RegistryLogin[]> {
    return await this.#db
      .selectFrom("registry_logins")
      .select(["host", "username", "created_at as createdAt"])
      .where("user_id", "=", userId)
      .orderBy("host")
      .execute()
  }

  async reveal(userId: UserId, host: string): Promise<RegistryCredential | undefined> {
    const row = await this.#row(this.#db, userId, host)
    return row && { username: row.username, password: await this.#vault.decrypt(row.ciphertext) }
  }

  async remove(userId: UserId, host: string): Promise<void> {
    const removed = await this.#db
      .deleteFrom("registry_logins")
      .where("user_id", "=", userId)
      .where("host", "=", host)
      .executeTakeFirst()
    if (removed.numDeletedRows > 0n) return
    throw new AppError("not_found", `you are not logged in at ${host}`, {
      subject: { kind: "registry", name: host },
    })
  }

  async #row(db: Kysely<Schema>, userId: UserId, host: string) {
    return await db
      .selectFrom("registry_logins")
      .selectAll()
      .where("user_id", "=", userId)
      .where("host", "=", host)
      .executeTakeFirst()
  }
}
