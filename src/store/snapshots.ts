/**
 * Named snapshots in the store. A row reserves the name and a place within the owner's limit, from before the first
 * file exists until the last one is gone; only `ready` snapshots can be used.
 */

import { AppError } from "@bhatti/contract/errors"
import { SandboxId, SnapshotId, UserId } from "@bhatti/contract/ids"
import { limits } from "@bhatti/contract/limits"
import type { Kysely } from "kysely"
import { z } from "zod"
import { randomHex } from "../lib/random-hex.ts"
import { checkDiskQuota } from "./disk-use.ts"
import { readSpec, type SandboxSpec, writeSpec } from "./sandbox-spec.ts"
import type { SandboxRecord } from "./sandboxes.ts"
import type { Schema, SnapshotRow } from "./schema.ts"
import { refusedBy } from "./sqlite/constraints.ts"
import { insertionOrder } from "./sqlite/queries.ts"
import { countOf, withUserLocked } from "./user-lock.ts"
import type { Account } from "./users.ts"

/** The specification is the one its copies inherit. */
export type SnapshotRecord = SandboxSpec & {
  id: SnapshotId
  userId: UserId
  name: string
  state: "creating" | "ready" | "deleting"
  sourceId: SandboxId
  sourceName: string
  /** The template below its disk. */
  templateId: string
  hasMemory: boolean
  bytes: number
  createdAt: string
}

export class Snapshots {
  readonly #db: Kysely<Schema>

  constructor(db: Kysely<Schema>) {
    this.#db = db
  }

  /** Writes the intent to take a snapshot of that sandbox, of at least that size. */
  async add(
    account: Account,
    name: string,
    source: SandboxRecord,
    { neededMib }: { neededMib: number },
  ): Promise<SnapshotRecord> {
    if (source.templateId === null) throw new Error(`sandbox ${source.id} has no disk`)
    const row: SnapshotRow = {
      id: `snap_${randomHex(8)}`,
      user_id: account.id,
      name,
      state: "creating",
      source_id: source.id,
      source_name: source.name,
      template_id: source.templateId,
      // A copy gets a secret only if the request for it names it.
      spec: writeSpec({ ...source, secretNames: [] }),
      has_memory: 0,
      bytes: neededMib * 1024 * 1024,
      created_at: new Date().toISOString(),
    }
    return await withUserLocked(this.#db, account.id, async (db, user) => {
      await checkDiskQuota(db, user, neededMib)
      if ((await countOf(db, "snapshots", user)) >= limits.snapshotsMax) {
        throw new AppError("limit_exceeded", `you have ${limits.snapshotsMax} snapshots already`, {
          hint: "delete one of them",
          subject: { kind: "snapshot" },
        })
      }
      const taken = new AppError("conflict", `a snapshot named "${name}" exists already`, {
        hint: "choose another name, or delete that one",
        subject: { kind: "snapshot", name },
      })
      await refusedBy("snapshots_user_name", db.insertInto("snapshots").values(row).execute(), () => taken)
      return toRecord(row)
    })
  }

  async setReady(id: SnapshotId, facts: { hasMemory: boolean; bytes: number }): Promise<void> {
    await this.#db
      .updateTable("snapshots")
      .set({ state: "ready", has_memory: Number(facts.hasMemory), bytes: facts.bytes })
      .where("id", "=", id)
      .execute()
  }

  async setDeleting(id: SnapshotId): Promise<void> {
    await this.#db.updateTable("snapshots").set({ state: "deleting" }).where("id", "=", id).execute()
  }

  async remove(id: SnapshotId): Promise<void> {
    await this.#db.deleteFrom("snapshots").where("id", "=", id).execute()
  }

  /** Finds by id first, then by name; only the account's own snapshots. */
  async find(userId: UserId, nameOrId: string): Promise<SnapshotRecord | undefined> {
    const rows = await this.#db
      .selectFrom("snapshots")
      .selectAll()
      .where("user_id", "=", userId)
      .where((eb) => eb.or([eb("id", "=", nameOrId), eb("name", "=", nameOrId)]))
      .execute()
    const row = rows.find((one) => one.id === nameOrId) ?? rows[0]
    return row && toRecord(row)
  }

  async get(id: SnapshotId): Promise<SnapshotRecord | undefined> {
    const row = await this.#db.selectFrom("snapshots").selectAll().where("id", "=", id).executeTakeFirst()
    return row && toRecord(row)
  }

  async listOf(userId: UserId): Promise<SnapshotRecord[]> {
    const rows = await this.#db
      .selectFrom("snapshots")
      .selectAll()
      .where("user_id", "=", userId)
      .orderBy("created_at")
      // Orders rows of the same millisecond.
      .orderBy(insertionOrder)
      .execute()
    return rows.map(toRecord)
  }

  async listOnHost(): Promise<SnapshotRecord[]> {
    return (await this.#db.selectFrom("snapshots").selectAll().execute()).map(toRecord)
  }
}

function toRecord(row: SnapshotRow): SnapshotRecord {
  return {
    ...readSpec(row.spec),
    id: SnapshotId.parse(row.id),
    userId: UserId.parse(row.user_id),
    name: row.name,
    state: z.enum(["creating", "ready", "deleting"]).parse(row.state),
    sourceId: SandboxId.parse(row.source_id),
    sourceName: row.source_name,
    templateId: row.template_id,
    hasMemory: row.has_memory === 1,
    bytes: Number(row.bytes),
    createdAt: row.created_at,
  }
}
