/**
 * Rows of new sandboxes. One statement assigns name, slot and a place within the owner's limit, or refuses, so that
 * concurrent creates never share any of them.
 */

import { AppError } from "@bhatti/contract/errors"
import { SandboxId } from "@bhatti/contract/ids"
import { type Kysely, sql } from "kysely"
import { randomHex } from "../lib/random-hex.ts"
import { hasDiskRoom, quotaError } from "./disk-use.ts"
import type { NewSandbox, SandboxState } from "./sandboxes.ts"
import type { NewSandboxRow, SandboxRow, Schema } from "./schema.ts"
import { isUniqueViolation } from "./sqlite.ts"
import { type Account, noLongerValid } from "./users.ts"

type Database = Kysely<Schema>

/** Thrown by a write beyond the owner's limit; `orRefusal` turns it into the owner's error. */
const noRoom = new Error("there is no room")

const creating = JSON.stringify({ kind: "creating" } satisfies SandboxState)

function freeSlot(slotsInUse: number[]) {
  // Slot 0 is never assigned.
  const others = sql.join([0, ...slotsInUse].map((slot) => sql`(${slot})`))
  return sql`
    with used(slot) as (select slot from sandboxes union values ${others})
    select min(slot) + 1 from used where slot + 1 not in (select slot from used)`
}

function hasRoom(account: Account) {
  return sql<boolean>`(select count(*) from sandboxes where user_id = ${account.id})
    < (select max_sandboxes from users where id = ${account.id})`
}

export async function insertRow(
  db: Database,
  account: Account,
  input: NewSandbox,
  { slotsInUse }: { slotsInUse: number[] },
): Promise<SandboxRow> {
  const row: NewSandboxRow = {
    id: newId(),
    user_id: account.id,
    state: creating,
    image_name: input.imageName,
    image_hash: input.imageHash,
    cpus: input.cpus,
    memory_mib: input.memoryMib,
    boot_reason: null,
    in_batch: 0,
    ...ownersColumns(input),
  }
  const columns = Object.keys(row) as (keyof NewSandboxRow)[]
  const statement = sql<{ slot: number }>`
    insert into sandboxes (${sql.join(columns.map((column) => sql.ref(column)))}, slot)
    select ${sql.join(columns.map((column) => sql.val(row[column])))}, (${freeSlot(slotsInUse)})
    where ${hasRoom(account)} and ${hasDiskRoom(account.id, input.usedMib)}
    returning slot`
  const { rows } = await orNameTaken(input.name, statement.execute(db))
  const [placed] = rows
  if (!placed) throw noRoom
  return { ...row, template_id: null, address: null, slot: placed.slot }
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
    .where(hasRoom(account))
    .where(hasDiskRoom(account.id, input.usedMib))
    .returningAll()
  const row = await orNameTaken(input.name, claim.executeTakeFirst())
  if (!row) throw noRoom
  return row
}

export async function insertPooledRow(
  db: Database,
  input: Pick<NewSandbox, "imageName" | "imageHash" | "cpus" | "memoryMib" | "diskMib"> & {
    slotsInUse: number[]
  },
): Promise<{ id: string; slot: number }> {
  const id = newId()
  const { rows } = await sql<{ slot: number }>`
    insert into sandboxes (id, user_id, name, state, image_name, image_hash, cpus, memory_mib, disk_mib,
                           env, secret_names, labels, keep_hot, allow_cold, created_at, slot)
    select ${id}, null, ${id}, ${creating}, ${input.imageName},
           ${input.imageHash}, ${input.cpus}, ${input.memoryMib}, ${input.diskMib}, '{}', '[]', '{}', 0, 1,
           ${new Date().toISOString()}, (${freeSlot(input.slotsInUse)})
    returning slot`.execute(db)
  const [row] = rows
  if (!row) throw new Error("a pooled sandbox got no slot")
  return { id, slot: row.slot }
}

/** Runs `write`, which inserts the rows; turns a limit it hits into the owner's error. */
export async function orRefusal<T>(
  db: Database,
  account: Account,
  wanted: readonly NewSandbox[],
  write: () => Promise<T>,
): Promise<T> {
  try {
    return await write()
  } catch (error) {
    if (error !== noRoom) throw error
    const user = await db
      .selectFrom("users")
      .select("max_sandboxes")
      .where("id", "=", account.id)
      .executeTakeFirst()
    // A deleted user has no limit, so the insert fails too.
    if (!user) throw noLongerValid()
    const neededMib = wanted.reduce((sum, { usedMib }) => sum + usedMib, 0)
    throw (await quotaError(db, account.id, neededMib)) ?? limitReached(user.max_sandboxes, wanted.length)
  }
}

/** Columns that the owner sets. */
function ownersColumns(input: NewSandbox) {
  return {
    name: input.name,
    disk_mib: input.diskMib,
    used_mib: input.usedMib,
    env: JSON.stringify(input.env),
    secret_names: JSON.stringify(input.secretNames),
    labels: JSON.stringify(input.labels),
    keep_hot: Number(input.keepHot),
    allow_cold: Number(input.allowCold),
    net_policy: JSON.stringify(input.netPolicy),
    warm_after_sec: input.warmAfterSec,
    cold_after_sec: input.coldAfterSec,
    boot_script: input.bootScript,
    created_at: new Date().toISOString(),
  }
}

async function orNameTaken<T>(name: string, statement: Promise<T>): Promise<T> {
  try {
    return await statement
  } catch (error) {
    if (!isUniqueViolation(error, "sandboxes.name")) throw error
    throw new AppError("conflict", `a sandbox named "${name}" exists already`, {
      hint: `choose another name, or: bhatti destroy ${name}`,
    })
  }
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
