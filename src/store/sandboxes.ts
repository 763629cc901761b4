/** Sandboxes in the store: reads and writes their rows. */

import { SandboxId, UserId } from "@bhatti/contract/ids"
import type { Kysely } from "kysely"
import { type Lifetime, lifetimeColumns, readLifetime, readStopped } from "./lifetime.ts"
import {
  claimRow,
  insertPooledRow,
  insertRow,
  orNameTaken,
  type SlotsOfHost,
  withinLimits,
} from "./sandbox-places.ts"
import { type NewSandbox, type SandboxRecord, SandboxState } from "./sandbox-record.ts"
import { readSpec, type SandboxSpec, writeSpec } from "./sandbox-spec.ts"
import type { SandboxRow, Schema } from "./schema.ts"
import { sees } from "./scope.ts"
import { insertionOrder } from "./sqlite/queries.ts"
import type { Account } from "./users.ts"

export { type NewSandbox, type SandboxRecord, SandboxState }

/** The account that asks, with the rights of its key. */
type Whose = Pick<Account, "id" | "scope">

export class Sandboxes {
  readonly #db: Kysely<Schema>

  constructor(db: Kysely<Schema>) {
    this.#db = db
  }

  /**
   * Writes the intent to create a sandbox: its name, its slot and its place within the limit are reserved from here on.
   * Slots that the host calls in use are skipped.
   */
  async add(account: Account, input: NewSandbox, host: SlotsOfHost): Promise<SandboxRecord> {
    return toRecord(
      await withinLimits(this.#db, account, [input], (db) => insertRow(db, account, input, host)),
    )
  }

  /** Assigns a pooled sandbox to an account, under the same rules as `add`. */
  async claim(id: SandboxId, account: Account, input: NewSandbox): Promise<SandboxRecord> {
    return toRecord(await withinLimits(this.#db, account, [input], (db) => claimRow(db, id, account, input)))
  }

  /**
   * Runs `add` for each input, or `claim` if it has a `pooledId`: all or none, in one transaction. Several form a batch
   * until `setBatchDone`.
   */
  async addAll(
    account: Account,
    wanted: readonly { input: NewSandbox; pooledId?: SandboxId | undefined }[],
    host: SlotsOfHost,
  ): Promise<SandboxRecord[]> {
    const inputs = wanted.map(({ input }) => input)
    const rows = await withinLimits(this.#db, account, inputs, async (db) => {
      const rows: SandboxRow[] = []
      for (const { input, pooledId: id } of wanted) {
        rows.push(
          await (id === undefined ? insertRow(db, account, input, host) : claimRow(db, id, account, input)),
        )
      }
      if (rows.length === 1) return rows
      await setInBatch(db, rows, 1)
      return rows.map((row) => ({ ...row, in_batch: 1 }))
    })
    return rows.map(toRecord)
  }

  /** A sandbox that is never done: a daemon that starts removes it. */
  async addUnfinished(account: Account, input: NewSandbox, host: SlotsOfHost): Promise<SandboxRecord> {
    const row = await withinLimits(this.#db, account, [input], async (db) => {
      const row = await insertRow(db, account, input, host)
      await setInBatch(db, [row], 1)
      return { ...row, in_batch: 1 }
    })
    return toRecord(row)
  }

  /** Ends the batch: each is an independent sandbox from now on. */
  async setBatchDone(records: readonly Pick<SandboxRecord, "id">[]): Promise<void> {
    await setInBatch(this.#db, records, 0)
  }

  /** Writes the intent to make a pooled sandbox. */
  async addPooled(host: SlotsOfHost): Promise<{ id: SandboxId; slot: number }> {
    const row = await insertPooledRow(this.#db, host)
    return { id: SandboxId.parse(row.id), slot: row.slot }
  }

  /** Pooled sandboxes that are unclaimed. */
  async listPooledOnHost(): Promise<SandboxId[]> {
    const rows = await this.#db.selectFrom("sandboxes").select("id").where("user_id", "is", null).execute()
    return rows.map(({ id }) => SandboxId.parse(id))
  }

  /** Templates that sandboxes depend on, including pooled ones. */
  async listTemplateIdsOnHost(): Promise<string[]> {
    const rows = await this.#db.selectFrom("sandboxes").select("template_id").distinct().execute()
    return rows.flatMap(({ template_id }) => (template_id === null ? [] : [template_id]))
  }

  /** A sandbox with a lifetime that runs again is due; one that is not stopped has no time of its stop. */
  async setState(id: SandboxId, state: SandboxState): Promise<void> {
    const changed = await this.#db
      .updateTable("sandboxes")
      .set(({ case: when, fn, ref, val }) => ({
        state: JSON.stringify(SandboxState.parse(state)),
        ...(state.kind !== "cold" && { stopped: null }),
        ...(state.kind === "hot" && {
          due_ms: when()
            .when("lifetime", "is", null)
            .then(ref("due_ms"))
            .else(fn.coalesce("due_ms", val(0)))
            .end(),
        }),
      }))
      .where("id", "=", id)
      .executeTakeFirst()
    if (changed.numUpdatedRows === 0n) throw new Error(`sandbox ${id} has no row`)
  }

  /** `lifetime` is left as it is unless it is given. */
  async edit(
    id: SandboxId,
    changed: SandboxSpec & Pick<SandboxRecord, "name"> & { lifetime?: Lifetime | null | undefined },
  ): Promise<void> {
    const { name, lifetime } = changed
    const edit = this.#db
      .updateTable("sandboxes")
      .set({
        name,
        spec: writeSpec(changed),
        ...(lifetime !== undefined && lifetimeColumns(lifetime)),
      })
      .where("id", "=", id)
    await orNameTaken(name, edit.execute(), { hint: "choose another name" })
  }

  async setBootReason(id: SandboxId, bootReason: string | null): Promise<void> {
    await this.#db.updateTable("sandboxes").set({ boot_reason: bootReason }).where("id", "=", id).execute()
  }

  /** Written before the disk exists, so that the template never counts as unused. */
  async setTemplate(id: SandboxId, templateId: string): Promise<void> {
    await this.#db.updateTable("sandboxes").set({ template_id: templateId }).where("id", "=", id).execute()
  }

  async setAddress(id: SandboxId, address: string | null): Promise<void> {
    await this.#db.updateTable("sandboxes").set({ address }).where("id", "=", id).execute()
  }

  async remove(id: SandboxId): Promise<void> {
    await this.#db.deleteFrom("sandboxes").where("id", "=", id).execute()
  }

  /** Finds by id first, then by name; only sandboxes that exist for the account. */
  async find({ id, scope }: Whose, nameOrId: string): Promise<SandboxRecord | undefined> {
    const rows = await this.#db
      .selectFrom("sandboxes")
      .selectAll()
      .where("user_id", "=", id)
      .where((eb) => eb.or([eb("id", "=", nameOrId), eb("name", "=", nameOrId)]))
      .execute()
    const own = rows.filter((one) => sees(scope, one.id))
    const row = own.find((one) => one.id === nameOrId) ?? own[0]
    return row && toRecord(row)
  }

  async get(id: SandboxId): Promise<SandboxRecord | undefined> {
    const row = await this.#db
      .selectFrom("sandboxes")
      .selectAll()
      .where("id", "=", id)
      .where("user_id", "is not", null)
      .executeTakeFirst()
    return row && toRecord(row)
  }

  async listOf({ id: userId, scope }: Whose): Promise<SandboxRecord[]> {
    const rows = await this.#db
      .selectFrom("sandboxes")
      .selectAll()
      .where("user_id", "=", userId)
      .orderBy("created_at")
      // Orders rows of the same millisecond.
      .orderBy(insertionOrder)
      .execute()
    return rows.filter(({ id }) => sees(scope, id)).map(toRecord)
  }

  async listOnHost(): Promise<SandboxRecord[]> {
    return (
      await this.#db
        .selectFrom("sandboxes")
        .selectAll()
        .where("user_id", "is not", null)
        .orderBy("slot")
        .execute()
    ).map(toRecord)
  }
}

async function setInBatch(
  db: Kysely<Schema>,
  rows: readonly { id: string }[],
  inBatch: 0 | 1,
): Promise<void> {
  const ids = rows.map(({ id }) => id)
  await db.updateTable("sandboxes").set({ in_batch: inBatch }).where("id", "in", ids).execute()
}

function toRecord(row: SandboxRow): SandboxRecord {
  return {
    ...readSpec(row.spec),
    id: SandboxId.parse(row.id),
    userId: UserId.parse(row.user_id),
    name: row.name,
    state: SandboxState.parse(JSON.parse(row.state)),
    slot: row.slot,
    templateId: row.template_id,
    usedMib: row.used_mib,
    address: row.address,
    bootReason: row.boot_reason,
    isInBatch: row.in_batch === 1,
    lifetime: readLifetime(row.lifetime),
    stopped: readStopped(row.stopped),
    createdAt: row.created_at,
  }
}
