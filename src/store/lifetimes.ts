/** Lifetimes of the sandboxes of this host, and its clock, in the store. */

import { SandboxId } from "@bhatti/contract/ids"
import type { Kysely } from "kysely"
import { type Lifetime, lifetimeColumns, Stopped } from "./lifetime.ts"
import type { SandboxRecord } from "./sandbox-record.ts"
import type { Schema } from "./schema.ts"

/** The host's clock at a moment of a boot. */
export type ClockMark = { bootId: string; bootMs: number; hostMs: number }

export class Lifetimes {
  readonly #db: Kysely<Schema>
  #clockMark: ClockMark | undefined

  private constructor(db: Kysely<Schema>, clockMark: ClockMark | undefined) {
    this.#db = db
    this.#clockMark = clockMark
  }

  /** The last one that was kept; undefined: this host has none yet. */
  get clockMark(): ClockMark | undefined {
    return this.#clockMark
  }

  static async open(db: Kysely<Schema>): Promise<Lifetimes> {
    const row = await db.selectFrom("host_clock").selectAll().executeTakeFirst()
    return new Lifetimes(db, row && { bootId: row.boot_id, bootMs: row.boot_ms, hostMs: row.host_ms })
  }

  async keepClock({ bootId, bootMs, hostMs }: ClockMark): Promise<void> {
    const row = { boot_id: bootId, boot_ms: bootMs, host_ms: hostMs }
    await this.#db.transaction().execute(async (db) => {
      await db.deleteFrom("host_clock").execute()
      await db.insertInto("host_clock").values(row).execute()
    })
    this.#clockMark = { bootId, bootMs, hostMs }
  }

  /** Returns the earliest time at which a sandbox is due; undefined if none is. */
  async nextDueOnHost(): Promise<number | undefined> {
    const row = await this.#db
      .selectFrom("sandboxes")
      .select(({ fn }) => fn.min("due_ms").as("due_ms"))
      .executeTakeFirst()
    return row?.due_ms ?? undefined
  }

  async dueOnHost(nowMs: number): Promise<SandboxRecord["id"][]> {
    const rows = await this.#db
      .selectFrom("sandboxes")
      .select("id")
      .where("user_id", "is not", null)
      .where("due_ms", "<=", nowMs)
      .orderBy("due_ms")
      .execute()
    return rows.map(({ id }) => SandboxId.parse(id))
  }

  async set(id: SandboxRecord["id"], lifetime: Lifetime | null): Promise<void> {
    await this.#db.updateTable("sandboxes").set(lifetimeColumns(lifetime)).where("id", "=", id).execute()
  }

  async setDue(id: SandboxRecord["id"], dueMs: number | null): Promise<void> {
    await this.#db.updateTable("sandboxes").set({ due_ms: dueMs }).where("id", "=", id).execute()
  }

  async setStopped(id: SandboxRecord["id"], stopped: Stopped): Promise<void> {
    await this.#db
      .updateTable("sandboxes")
      .set({ stopped: JSON.stringify(Stopped.parse(stopped)) })
      .where("id", "=", id)
      .execute()
  }
}
