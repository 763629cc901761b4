/**
 * Events: each records a change, its owner, time and reason. They hold no secret, key or environment. Written in
 * batches.
 */

import { limits } from "@bhatti/contract/limits"
import { type Kysely, type RawBuilder, sql } from "kysely"
import { z } from "zod"
import type { EventRow, Schema } from "./schema.ts"
import { among } from "./sqlite/queries.ts"

export type EventMeta = Record<string, string | number | boolean | null>

export type EventRecord = {
  /** UUID version 7: ids sort by time. */
  id: string
  at: string
  type: string
  userId: string | null
  sandboxId: string | null
  sandboxName: string | null
  meta: EventMeta
}

export type EventFilter = {
  /** The owner; null selects everybody's events and the host's own. */
  userId: string | null
  /** Prefix of the type. */
  type?: string | undefined
  /** Whole types. */
  types?: readonly string[] | undefined
  sandboxId?: string | undefined
  /** Only of these. */
  sandboxIds?: readonly string[] | undefined
  /** Id of a sandbox, or its name at that time. */
  sandbox?: string | undefined
  /** ISO time. */
  since?: string | undefined
}

const Meta = z.record(z.string(), z.union([z.string(), z.number(), z.boolean(), z.null()]))
/** Rows per delete; more would block other writers for too long. */
const pruneBatch = 5000
/** SQLite limits the number of values in one statement. */
const insertBatch = 500

export class Events {
  readonly #db: Kysely<Schema>

  constructor(db: Kysely<Schema>) {
    this.#db = db
  }

  async add(records: readonly EventRecord[]): Promise<void> {
    for (let at = 0; at < records.length; at += insertBatch) {
      const rows = records.slice(at, at + insertBatch).map(toRow)
      await this.#db.insertInto("events").values(rows).execute()
    }
  }

  /** Returns the newest matching events, oldest first. */
  async list(filter: EventFilter, limit: number): Promise<EventRecord[]> {
    let query = this.#db.selectFrom("events").selectAll()
    const { userId, type, types, sandbox, sandboxId, sandboxIds, since } = filter
    if (userId !== null) query = query.where("user_id", "=", userId)
    if (type !== undefined) query = query.where(sql`substr(type, 1, ${type.length})`, "=", type)
    if (types !== undefined) query = query.where("type", "in", types)
    if (sandboxId !== undefined) query = query.where("sandbox_id", "=", sandboxId)
    if (sandboxIds !== undefined) query = query.where("sandbox_id", "in", among(sandboxIds))
    if (sandbox !== undefined) {
      query = query.where((eb) => eb.or([eb("sandbox_id", "=", sandbox), eb("sandbox_name", "=", sandbox)]))
    }
    if (since !== undefined) query = query.where("at", ">=", since)
    const rows = await query.orderBy("id", "desc").limit(limit).execute()
    return rows.reverse().map(toRecord)
  }

  /**
   * Removes expired events, and the oldest beyond each user's limit and the total limit. Returns the number removed.
   */
  async prune(
    nowMs: number,
    { keptMax, perUserMax }: { keptMax: number; perUserMax: number } = {
      keptMax: limits.eventsKeptMax,
      perUserMax: limits.eventsPerUserMax,
    },
  ): Promise<number> {
    const oldest = new Date(nowMs - limits.eventDaysKept * 86_400_000).toISOString()
    let removed = await this.#removeAll(sql`select id from events where at < ${oldest} limit ${pruneBatch}`)
    const crowded = await this.#db
      .selectFrom("events")
      .select("user_id")
      .where("user_id", "is not", null)
      .groupBy("user_id")
      .having((eb) => eb.fn.countAll(), ">", perUserMax)
      .execute()
    for (const { user_id } of crowded) {
      removed += await this.#removeAll(
        sql`select id from events where user_id = ${user_id} order by id desc limit ${pruneBatch} offset ${perUserMax}`,
      )
    }
    return (
      removed +
      (await this.#removeAll(
        sql`select id from events order by id desc limit ${pruneBatch} offset ${keptMax}`,
      ))
    )
  }

  /** Deletes in batches until the selection is empty. */
  async #removeAll(batch: RawBuilder<unknown>): Promise<number> {
    for (let removed = 0; ; ) {
      const result = await sql`delete from events where id in (${batch})`.execute(this.#db)
      const count = Number(result.numAffectedRows ?? 0n)
      removed += count
      if (count < pruneBatch) return removed
    }
  }
}

function toRow(record: EventRecord): EventRow {
  return {
    id: record.id,
    at: record.at,
    type: record.type,
    user_id: record.userId,
    sandbox_id: record.sandboxId,
    sandbox_name: record.sandboxName,
    meta: JSON.stringify(record.meta),
  }
}

function toRecord(row: EventRow): EventRecord {
  return {
    id: row.id,
    at: row.at,
    type: row.type,
    userId: row.user_id,
    sandboxId: row.sandbox_id,
    sandboxName: row.sandbox_name,
    meta: Meta.parse(JSON.parse(row.meta)),
  }
}
