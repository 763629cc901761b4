/** Published ports: the port and sandbox behind each alias. An alias is unique on the host; a port may have several. */

import { AppError } from "@bhatti/contract/errors"
import { SandboxId } from "@bhatti/contract/ids"
import { limits } from "@bhatti/contract/limits"
import type { Kysely } from "kysely"
import { randomHex } from "../lib/random-hex.ts"
import type { PublishedPortRow, Schema } from "./schema.ts"
import { refusedBy } from "./sqlite/constraints.ts"
import { among, insertionOrder } from "./sqlite/queries.ts"
import { countOf, withUserLocked } from "./user-lock.ts"

export type PublishedPortRecord = {
  id: string
  sandboxId: SandboxId
  port: number
  alias: string
  createdAt: string
}

type NewPublishedPort = { sandboxId: SandboxId; port: number; alias: string }

export class PublishedPorts {
  readonly #db: Kysely<Schema>

  constructor(db: Kysely<Schema>) {
    this.#db = db
  }

  /** Publishes the port under that alias; `isNew: false` if the alias already leads to it. */
  async add(input: NewPublishedPort): Promise<{ record: PublishedPortRecord; isNew: boolean }> {
    return await withUserLocked(this.#db, { sandboxId: input.sandboxId }, async (db) => {
      const existing = await new PublishedPorts(db).findByAlias(input.alias)
      if (!existing) return { record: await insert(db, input), isNew: true }
      if (existing.sandboxId !== input.sandboxId) throw aliasTaken(input.alias)
      if (existing.port === input.port) return { record: existing, isNew: false }
      throw new AppError(
        "conflict",
        `the alias "${input.alias}" leads to port ${existing.port} of this sandbox`,
        {
          hint: `choose another one, or unpublish it from port ${existing.port} first`,
          subject: { kind: "alias", alias: input.alias, port: existing.port },
        },
      )
    })
  }

  /** Publishes under that alias if the port has none; otherwise returns the oldest one with `isNew: false`. */
  async addFirst(input: NewPublishedPort): Promise<{ record: PublishedPortRecord; isNew: boolean }> {
    return await withUserLocked(this.#db, { sandboxId: input.sandboxId }, async (db) => {
      const published = await new PublishedPorts(db).listOf([input.sandboxId])
      const oldest = published.find(({ port }) => port === input.port)
      return oldest ? { record: oldest, isNew: false } : { record: await insert(db, input), isNew: true }
    })
  }

  async findByAlias(alias: string): Promise<PublishedPortRecord | undefined> {
    const row = await this.#db
      .selectFrom("published_ports")
      .selectAll()
      .where("alias", "=", alias)
      .executeTakeFirst()
    return row && toRecord(row)
  }

  async listOf(sandboxIds: SandboxId[]): Promise<PublishedPortRecord[]> {
    if (sandboxIds.length === 0) return []
    const rows = await this.#db
      .selectFrom("published_ports")
      .selectAll()
      .where("sandbox_id", "in", among(sandboxIds))
      .orderBy("created_at")
      // Orders rows of the same millisecond.
      .orderBy(insertionOrder)
      .execute()
    return rows.map(toRecord)
  }

  /** Removes that alias, or all aliases of the port. Returns the removed ones. */
  async remove(
    sandboxId: SandboxId,
    port: number,
    alias: string | undefined,
  ): Promise<PublishedPortRecord[]> {
    const removal = this.#db
      .deleteFrom("published_ports")
      .where("sandbox_id", "=", sandboxId)
      .where("port", "=", port)
      .returningAll()
    return (await (alias === undefined ? removal : removal.where("alias", "=", alias)).execute()).map(
      toRecord,
    )
  }
}

/** Call it with the user locked. */
async function insert(db: Kysely<Schema>, input: NewPublishedPort): Promise<PublishedPortRecord> {
  const count = await countOf(db, "published_ports", { id: input.sandboxId })
  if (count >= limits.publishedPortsMax) throw tooMany()
  const row: PublishedPortRow = {
    id: `pub_${randomHex(8)}`,
    sandbox_id: input.sandboxId,
    port: input.port,
    alias: input.alias,
    created_at: new Date().toISOString(),
  }
  const statement = db.insertInto("published_ports").values(row).execute()
  await refusedBy("published_ports_alias", statement, () => aliasTaken(input.alias))
  return toRecord(row)
}

function aliasTaken(alias: string): AppError {
  return new AppError("conflict", `the alias "${alias}" is taken`, {
    hint: "choose another one",
    subject: { kind: "alias", alias },
  })
}

function tooMany(): AppError {
  return new AppError(
    "limit_exceeded",
    `a sandbox's published ports have at most ${limits.publishedPortsMax} aliases`,
    { hint: "unpublish one of them", subject: { kind: "published_port" } },
  )
}

function toRecord(row: PublishedPortRow): PublishedPortRecord {
  return {
    id: row.id,
    sandboxId: SandboxId.parse(row.sandbox_id),
    port: row.port,
    alias: row.alias,
    createdAt: row.created_at,
  }
}
