/**
 * Tickets that open one WebSocket each, in place of the key that a browser cannot send with one. They are in the
 * database, since another daemon or a later one may see the socket, and the database's clock decides when they expire.
 */

import { AppError } from "@bhatti/contract/errors"
import type { UserId } from "@bhatti/contract/ids"
import { limits } from "@bhatti/contract/limits"
import type { Kysely } from "kysely"
import { randomHex } from "../lib/random-hex.ts"
import { ApiKeys } from "./api-keys.ts"
import type { Schema } from "./schema.ts"
import { nowSec } from "./sqlite/queries.ts"
import { countOf, withUserLocked } from "./user-lock.ts"
import { hashKey, noLongerValid } from "./users.ts"

export class SocketTickets {
  readonly #db: Kysely<Schema>

  constructor(db: Kysely<Schema>) {
    this.#db = db
  }

  /** Returns a ticket for the holder of the key with that hash, if the key is still valid. */
  async issue(userId: UserId, keyHash: string): Promise<string> {
    const ticket = randomHex(32)
    await withUserLocked(this.#db, userId, async (db, user) => {
      const isValid = user.key_hash === keyHash || (await new ApiKeys(db).findAccount(keyHash)) !== undefined
      if (!isValid) throw noLongerValid()
      await db
        .deleteFrom("socket_tickets")
        .where("user_id", "=", userId)
        .where("expires_at", "<=", nowSec)
        .execute()
      if ((await countOf(db, "socket_tickets", user)) >= limits.socketTicketsMax) {
        throw new AppError("limit_exceeded", `you have ${limits.socketTicketsMax} unused tickets already`, {
          hint: `use them, or wait until they expire after ${limits.socketTicketSec} seconds`,
          retryable: true,
          retryAfterSec: limits.socketTicketSec,
        })
      }
      await db
        .insertInto("socket_tickets")
        .values(({ eb }) => ({
          id: hashKey(ticket),
          user_id: userId,
          key_hash: keyHash,
          expires_at: eb(nowSec, "+", limits.socketTicketSec),
        }))
        .execute()
    })
    return ticket
  }

  /** Uses the ticket up. Returns the hash of the key that it stands for, or undefined if it opens nothing. */
  async redeem(ticket: string): Promise<string | undefined> {
    const id = hashKey(ticket)
    // Somebody without a key can only make the daemon read.
    const known = await this.#db.selectFrom("socket_tickets").select("id").where("id", "=", id).execute()
    if (known.length === 0) return undefined
    const used = await this.#db
      .deleteFrom("socket_tickets")
      .where("id", "=", id)
      .where("expires_at", ">", nowSec)
      .returning("key_hash")
      .executeTakeFirst()
    return used?.key_hash
  }
}
