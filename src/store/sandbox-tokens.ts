/**
 * Tokens that stand for a key at one sandbox. They are derived, not stored: whoever reads the database without the
 * file of the vault has none, and a token ends with its key.
 */

import type { SandboxId } from "@bhatti/contract/ids"
import { type Kysely, sql } from "kysely"
import type { Schema } from "./schema.ts"
import { nowSec } from "./sqlite/queries.ts"
import type { Vault } from "./vault.ts"

/** A token of a key that is valid now. */
export type SandboxToken = { token: string; keyHash: string; sandboxId: SandboxId }

const prefix = "sbt_"
const tokensMax = 10_000

export class SandboxTokens {
  readonly #db: Kysely<Schema>
  readonly #vault: Pick<Vault, "mac">

  constructor(db: Kysely<Schema>, vault: Pick<Vault, "mac">) {
    this.#db = db
    this.#vault = vault
  }

  tokenOf(sandboxId: SandboxId, keyHash: string): string {
    return `${prefix}${this.#vault.mac(`sandbox token ${sandboxId} ${keyHash}`)}`
  }

  /** Returns the tokens of all keys of a sandbox's owner. */
  async of(sandboxId: SandboxId): Promise<SandboxToken[]> {
    return await this.#tokens(sandboxId)
  }

  /** Returns the tokens of all owners' sandboxes, of the newest ones if there are too many. */
  async ofAll(): Promise<SandboxToken[]> {
    return await this.#tokens(undefined)
  }

  async #tokens(sandboxId: SandboxId | undefined): Promise<SandboxToken[]> {
    const sandboxes = () =>
      this.#db
        .selectFrom("sandboxes")
        .$if(sandboxId !== undefined, (query) => query.where("sandboxes.id", "=", sandboxId ?? ""))
        .orderBy("sandboxes.created_at", "desc")
        .limit(tokensMax)
    const own = await sandboxes()
      .innerJoin("users", "users.id", "sandboxes.user_id")
      .select(["sandboxes.id as sandbox", "users.key_hash as hash"])
      .execute()
    const lesser = await sandboxes()
      .innerJoin("api_keys", "api_keys.user_id", "sandboxes.user_id")
      .where(sql<boolean>`(api_keys.expires_at is null or api_keys.expires_at > ${nowSec})`)
      .select(["sandboxes.id as sandbox", "api_keys.key_hash as hash"])
      .execute()
    return [...own, ...lesser].map(({ sandbox, hash }) => {
      const id = sandbox as SandboxId
      return { token: this.tokenOf(id, hash), keyHash: hash, sandboxId: id }
    })
  }
}
