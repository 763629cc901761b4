/** Rows of new sandboxes: each takes a name, a slot and a place within its owner's limits. */

import { AppError } from "@bhatti/contract/errors"
import { SandboxId } from "@bhatti/contract/ids"
import { type Kysely, sql } from "kysely"
import { randomHex } from "../lib/random-hex.ts"
import { checkDiskQuota } from "./disk-use.ts"
import { lifetimeColumns } from "./lifetime.ts"
import type { NewSandbox, SandboxState } from "./sandbox-record.ts"
import { writeSpec } from "./sandbox-spec.ts"
import type { SandboxRow, Schema } from "./schema.ts"
import { refusedBy } from "./sqlite/constraints.ts"
import { countOf, withUserLocked } from "./user-lock.ts"
import type { Account } from "./users.ts"

type Database = Kysely<Schema>

const creating = JSON.stringify({ kind: "creating" } satisfies SandboxState)

/** Tells whether a process of the host has a slot's user id. */
export type SlotsOfHost = { isSlotInUse(slot: number): boolean }

/** Returns the slots below the free one that are no sandbox's. The insert alone decides which one it takes. */
async function slotsToSkip(db: Database, host: SlotsOfHost): Promise<number[]> {
  const rows = await db.selectFrom("sandboxes").select("slot").execute()
  const taken = new Set(rows.map(({ slot }) => slot))
  const skipped: number[] = []
  for (let slot = 1; ; slot++) {
    if (taken.has(slot)) continue
    if (!host.isSlotInUse(slot)) return skipped
    skipped.push(slot)
  }
}

async function freeSlot(db: Database, host: SlotsOfHost) {
  // Slot 0 is never assigned.
  const skipped = [0, ...(await slotsToSkip(db, host))]
  const others = sql.join(skipped.map((slot) => sql`(cast(${slot} as integer))`))
  return sql<number>`(
    with used(slot) as (select slot from sandboxes union values ${others})
    select min(slot) + 1 from used where slot + 1 not in (select slot from used))`
}

export async function insertRow(
  db: Database,
  account: Account,
  input: NewSandbox,
  host: SlotsOfHost,
): Promise<SandboxRow> {
  const insert = db
    .insertInto("sandboxes")
    .values({
      id: newId(),
      user_id: account.id,
      state: creating,
      slot: await freeSlot(db, host),
      in_batch: 0,
      ...ownersColumns(input),
    })
    .returningAll()
  return await orNameTaken(input.name, insert.executeTakeFirstOrThrow())
}

/** Claims a pool row that is still unclaimed. */
export async function claimRow(
  db: Database,
  id: SandboxId,
  account: Account,
  input: NewSandbox,
): Promise<SandboxRow> {
  const claim = db
    .updateTable("sandboxes")
    .set({ user_id: account.id, ...ownersColumns(input) })
    .where("id", "=", id)
    .where("user_id", "is", null)
    .returningAll()
  const row = await orNameTaken(input.name, claim.executeTakeFirst())
  if (!row) throw new Error(`the pooled sandbox ${id} is gone`)
  return row
}

export async function insertPooledRow(
  db: Database,
  host: SlotsOfHost,
): Promise<{ id: string; slot: number }> {
  const id = newId()
  return await db
    .insertInto("sandboxes")
    .values({
      id,
      name: id,
      state: creating,
      slot: await freeSlot(db, host),
      created_at: new Date().toISOString(),
    })
    .returning(["id", "slot"])
    .executeTakeFirstOrThrow()
}

/** Runs `write`, which inserts the wanted rows, if all of them are within the owner's limits. */
export async function withinLimits<T>(
  db: Database,
  account: Account,
  wanted: readonly NewSandbox[],
  write: (db: Database) => Promise<T>,
): Promise<T> {
  return await withUserLocked(db, account.id, async (db, user) => {
    await checkDiskQuota(
      db,
      user,
      wanted.reduce((sum, { usedMib }) => sum + usedMib, 0),
    )
    if ((await countOf(db, "sandboxes", user)) + wanted.length > user.max_sandboxes)
      throw limitReached(user.max_sandboxes, wanted.length)
    for (const one of wanted) await refuseWithoutImage(db, one)
    return await write(db)
  })
}

/** An image that was deleted since it was found would be one that the sandbox needs. */
async function refuseWithoutImage(db: Database, { imageId, imageShownAs }: NewSandbox): Promise<void> {
  if (imageId === null) return
  const image = await db.selectFrom("images").select("id").where("id", "=", imageId).executeTakeFirst()
  if (image) return
  const name = imageShownAs ?? imageId
  throw new AppError("not_found", `image "${name}" was deleted meanwhile`, {
    subject: { kind: "image", name },
  })
}

/** Columns that the owner sets. */
function ownersColumns(input: NewSandbox) {
  return {
    name: input.name,
    used_mib: input.usedMib,
    spec: writeSpec(input),
    ...lifetimeColumns(input.lifetime),
    created_at: new Date().toISOString(),
  }
}

/** `advice` is for a name that is taken. */
export async function orNameTaken<T>(
  name: string,
  statement: Promise<T>,
  advice: ConstructorParameters<typeof AppError>[2] = {
    hint: "choose another name, or destroy that one",
    subject: { kind: "sandbox", name },
  },
): Promise<T> {
  const message = `a sandbox named "${name}" exists already`
  return await refusedBy("sandboxes_user_name", statement, () => new AppError("conflict", message, advice))
}

function newId(): SandboxId {
  return SandboxId.parse(`sb_${randomHex(8)}`)
}

function limitReached(max: number, count: number): AppError {
  const message =
    count === 1
      ? `your limit on sandboxes, ${max}, is reached`
      : `${count} more sandboxes are above your limit of ${max}`
  return new AppError("limit_exceeded", message, {
    hint: "destroy one of them, or ask the operator for a higher limit",
  })
}
