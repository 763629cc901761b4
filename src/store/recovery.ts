/**
 * Rows kept beside the disks, and their way back into a database that has lost them. They are kept column by column as
 * in the tables, so that columns added by later versions are kept too.
 */

import { AppError } from "@bhatti/contract/errors"
import { SandboxId, SnapshotId } from "@bhatti/contract/ids"
import { type Kysely, sql } from "kysely"
import { z } from "zod"
import { raiseCounter } from "./changes.ts"
import { anotherClocksColumns } from "./lifetime.ts"
import { Sandboxes, SandboxState } from "./sandboxes.ts"
import type { Schema } from "./schema.ts"
import { Snapshots } from "./snapshots.ts"
import { withSpec } from "./sqlite/migrations/0010-one-specification.ts"
import { defaultLimits, hashKey, limitColumns, newKey } from "./users.ts"

const Row = z.record(z.string(), z.union([z.string(), z.number(), z.null()]))
type Row = z.infer<typeof Row>

export const KeptRow = z.strictObject({
  kind: z.enum(["sandbox", "snapshot"]),
  owner: z.strictObject({ id: z.string(), name: z.string() }),
  row: Row.and(z.object({ id: z.string(), name: z.string(), user_id: z.string() })),
  /** Its published ports. */
  ports: z.array(Row),
  /** Stamp of the disk that belongs to its saved memory; null without saved memory. */
  diskStamp: z.string().nullable(),
})
export type KeptRow = z.infer<typeof KeptRow>

/** `newOwner` is an owner who had to be recreated, with the key that replaces the lost one. */
export type PutBack = {
  name: string
  lostAliases: string[]
  newOwner: { name: string; key: string } | undefined
}

const tableOf = { sandbox: "sandboxes", snapshot: "snapshots" } as const

export class Recovery {
  readonly #db: Kysely<Schema>

  constructor(db: Kysely<Schema>) {
    this.#db = db
  }

  /**
   * Rows to keep beside the disks, without the disks' stamps: all sandboxes and snapshots, including unfinished ones.
   */
  async rowsToKeep(): Promise<(Omit<KeptRow, "diskStamp"> & { state: string })[]> {
    const users = await this.#db.selectFrom("users").select(["id", "name"]).execute()
    const names = new Map(users.map(({ id, name }) => [id, name]))
    const ports = Map.groupBy(
      await this.#db.selectFrom("published_ports").selectAll().orderBy("id").execute(),
      ({ sandbox_id }) => sandbox_id,
    )
    const sandboxes = await this.#db
      .selectFrom("sandboxes")
      .selectAll()
      .where("user_id", "is not", null)
      .execute()
    const snapshots = await this.#db
      .selectFrom("snapshots")
      .selectAll()
      .where("state", "=", "ready")
      .execute()
    return [
      ...sandboxes
        .filter(({ state }) => hasLasted(state))
        .map((row) => ({
          kind: "sandbox" as const,
          owner: ownerOf(row.user_id ?? "", names),
          // The disk use is measured again later.
          row: { ...row, user_id: row.user_id ?? "", used_mib: 0 },
          ports: ports.get(row.id) ?? [],
          state: row.state,
        })),
      ...snapshots.map((row) => ({
        kind: "snapshot" as const,
        owner: ownerOf(row.user_id, names),
        row: { ...row },
        ports: [],
        state: row.state,
      })),
    ]
  }

  /** Runs `work` in one transaction. */
  async inOneChange<Result>(work: (recovery: Recovery) => Promise<Result>): Promise<Result> {
    return await this.#db.transaction().execute((db) => work(new Recovery(db)))
  }

  /** A nested transaction: if `work` fails, only its own changes are rolled back. */
  async #orNothing<Result>(work: () => Promise<Result>): Promise<Result> {
    await sql`savepoint one_row`.execute(this.#db)
    try {
      const result = await work()
      await sql`release one_row`.execute(this.#db)
      return result
    } catch (error) {
      // Without a usable database the whole transaction is lost anyway.
      if (error instanceof AppError && error.code === "unavailable") throw error
      await sql`rollback to one_row`.execute(this.#db)
      await sql`release one_row`.execute(this.#db)
      throw error
    }
  }

  /** Ids of unreadable rows. */
  async damagedRows(): Promise<string[]> {
    const damaged: string[] = []
    const sandboxes = new Sandboxes(this.#db)
    for (const id of await this.ids("sandbox")) {
      if (!(await isReadable(() => sandboxes.get(SandboxId.parse(id))))) damaged.push(id)
    }
    const snapshots = new Snapshots(this.#db)
    for (const id of await this.ids("snapshot")) {
      if (!(await isReadable(() => snapshots.get(SnapshotId.parse(id))))) damaged.push(id)
    }
    return damaged
  }

  /** Ids of all rows except the pool's. */
  async ids(kind: KeptRow["kind"]): Promise<string[]> {
    const rows = await this.#db
      .selectFrom(tableOf[kind])
      .select("id")
      .where("user_id", "is not", null)
      .execute()
    return rows.map(({ id }) => id)
  }

  /**
   * Recreates the owner of a kept row if the id is unknown; returns the new key, and the new name if the old one was
   * taken.
   */
  async #addOwner(owner: KeptRow["owner"]): Promise<{ name: string; key: string } | undefined> {
    const there = await this.#db
      .selectFrom("users")
      .select("id")
      .where("id", "=", owner.id)
      .executeTakeFirst()
    if (there) return undefined
    const taken = await this.#db
      .selectFrom("users")
      .select("id")
      .where("name", "=", owner.name)
      .executeTakeFirst()
    const name = taken ? `${owner.name}-recovered` : owner.name
    const key = newKey()
    await this.#db
      .insertInto("users")
      .values({
        id: owner.id,
        name,
        key_hash: hashKey(key),
        ...limitColumns(defaultLimits),
        created_at: new Date().toISOString(),
      })
      .execute()
    return { name, key }
  }

  /**
   * Restores a kept row, and its owner if missing. `state` is its current state. A name or slot that is taken meanwhile
   * is replaced; aliases that are taken are reported. Call it only within one change; a failed call changes nothing.
   */
  async put(kept: KeptRow, state: SandboxState | "ready"): Promise<PutBack> {
    const table = tableOf[kept.kind]
    const db = this.#db
    return await this.#orNothing(async () => {
      const newOwner = await this.#addOwner(kept.owner)
      const row: Row = {
        ...withSpec(kept.row),
        state: state === "ready" ? state : JSON.stringify(SandboxState.parse(state)),
      }
      row["name"] = await freeName(db, table, kept.row)
      if (kept.kind === "sandbox") {
        row["slot"] = await slotFor(db, kept.row["slot"])
        // The rows may be those of another host.
        Object.assign(row, anotherClocksColumns(row["lifetime"] as string | null | undefined))
      }
      await insert(db, table, row)
      const read =
        kept.kind === "sandbox"
          ? new Sandboxes(db).get(SandboxId.parse(kept.row.id))
          : new Snapshots(db).get(SnapshotId.parse(kept.row.id))
      if (!(await read)) throw new AppError("invalid", `the record of ${kept.row.id} is incomplete`)
      const lostAliases: string[] = []
      for (const port of kept.ports) {
        const taken = await db
          .selectFrom("published_ports")
          .select("id")
          .where("alias", "=", String(port["alias"]))
          .executeTakeFirst()
        if (taken) lostAliases.push(String(port["alias"]))
        else await insert(db, "published_ports", port)
      }
      return { name: String(row["name"]), lostAliases, newOwner }
    })
  }

  async poolIds(): Promise<string[]> {
    const rows = await this.#db.selectFrom("sandboxes").select("id").where("user_id", "is", null).execute()
    return rows.map(({ id }) => id)
  }

  /** Removes pool rows of an outdated database: any of those sandboxes may have an owner by now. */
  async removePool(): Promise<void> {
    await this.#db.deleteFrom("sandboxes").where("user_id", "is", null).execute()
  }

  /** Removes an outdated row with its published ports. */
  async removeRow(kind: KeptRow["kind"], id: string): Promise<void> {
    await this.#db.deleteFrom(tableOf[kind]).where("id", "=", id).execute()
  }

  /** Prevents an outdated database from passing for this one. */
  async raiseCounter(atLeast: number): Promise<void> {
    await raiseCounter(this.#db, atLeast)
  }

  /** Keeps the directory's other parts valid for this database. */
  async setId(id: string): Promise<void> {
    await this.#db.updateTable("installation").set({ id }).execute()
  }
}

function ownerOf(id: string, names: ReadonlyMap<string, string>): KeptRow["owner"] {
  return { id, name: names.get(id) ?? id }
}

function hasLasted(state: string): boolean {
  const { kind } = SandboxState.parse(JSON.parse(state))
  return kind !== "creating" && kind !== "destroying"
}

async function isReadable(read: () => Promise<unknown>): Promise<boolean> {
  try {
    return (await read()) !== undefined
  } catch (error) {
    if (error instanceof z.ZodError || error instanceof SyntaxError) return false
    throw error
  }
}

async function freeName(
  db: Kysely<Schema>,
  table: "sandboxes" | "snapshots",
  row: KeptRow["row"],
): Promise<string> {
  const rows = await db.selectFrom(table).select("name").where("user_id", "=", row.user_id).execute()
  const taken = new Set(rows.map(({ name }) => name))
  let name = row.name
  for (let next = 2; taken.has(name); next++) name = `${row.name.slice(0, 58)}-${next}`
  return name
}

/** Prefers its own slot: a machine that still runs has the slot's user id. */
async function slotFor(db: Kysely<Schema>, own: unknown): Promise<number> {
  const rows = await db.selectFrom("sandboxes").select("slot").execute()
  const taken = new Set(rows.map(({ slot }) => slot))
  if (typeof own === "number" && own > 0 && !taken.has(own)) return own
  let slot = 1
  while (taken.has(slot)) slot++
  return slot
}

/** Inserts only columns that this version has. */
async function insert(
  db: Kysely<Schema>,
  table: "sandboxes" | "snapshots" | "published_ports",
  row: Row,
): Promise<void> {
  const known = (await db.introspection.getTables()).find(({ name }) => name === table)?.columns ?? []
  const columns = known.map(({ name }) => name).filter((name) => row[name] !== undefined)
  await sql`
    insert into ${sql.table(table)} (${sql.join(columns.map((column) => sql.ref(column)))})
    values (${sql.join(columns.map((column) => sql.val(row[column])))})`.execute(db)
}
