/**
 * The only place where rows are counted against a limit and then inserted. Meanwhile nobody else can add to the same
 * user, in this process or another, so two requests never share the last place within a limit.
 */

import { AppError } from "@bhatti/contract/errors"
import type { SandboxId, UserId } from "@bhatti/contract/ids"
import type { Kysely } from "kysely"
import type { Schema, UserRow } from "./schema.ts"
import { lockRows } from "./sqlite/queries.ts"
import { noLongerValid } from "./users.ts"

/** Runs `work` in a transaction that holds the user's row; fails if the user, or the user's sandbox, is gone. */
export async function withUserLocked<T>(
  db: Kysely<Schema>,
  whose: UserId | { sandboxId: SandboxId },
  work: (db: Kysely<Schema>, user: UserRow) => Promise<T>,
): Promise<T> {
  return await db.transaction().execute(async (db) => {
    // It comes first: a count before it could be outdated.
    await lockRows(db)
    const users = db.selectFrom("users").selectAll()
    const found =
      typeof whose === "string"
        ? users.where("id", "=", whose)
        : users.where("id", "=", ({ selectFrom }) =>
            selectFrom("sandboxes").select("user_id").where("sandboxes.id", "=", whose.sandboxId),
          )
    const user = await found.executeTakeFirst()
    if (user) return await work(db, user)
    if (typeof whose === "string") throw noLongerValid()
    throw new AppError("not_found", "the sandbox was destroyed meanwhile", {
      subject: { kind: "sandbox" },
    })
  })
}

/** Counts a table's rows of the user, or of one of their sandboxes. Call it with the user locked. */
export async function countOf(
  db: Kysely<Schema>,
  table:
    | "sandboxes"
    | "snapshots"
    | "images"
    | "registry_logins"
    | "secrets"
    | "api_keys"
    | "socket_tickets"
    | "published_ports",
  owner: { id: string },
): Promise<number> {
  const { count } = await db
    .selectFrom(table)
    .select(({ fn }) => fn.countAll().as("count"))
    .where(table === "published_ports" ? "sandbox_id" : "user_id", "=", owner.id)
    .executeTakeFirstOrThrow()
  return Number(count)
}
