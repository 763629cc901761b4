/** Published ports: the port and sandbox behind each alias. An alias is unique on the host; a port may have several. */

import { AppError } from "@bhatti/contract/errors"
import { SandboxId } from "@bhatti/contract/ids"
import { limits } from "@bhatti/contract/limits"
import { type Kysely, type RawBuilder, sql } from "kysely"
import { randomHex } from "../lib/random-hex.ts"
import type { PublishedPortRow, Schema } from "./schema.ts"
import { isForeignKeyViolation, isUniqueViolation } from "./sqlite.ts"

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
    let isTaken = false
    try {
      const record = await this.#insert(input, sql`true`)
      if (record) return { record, isNew: true }
    } catch (error) {
      if (!isUniqueViolation(error, "published_ports.alias")) throw error
      isTaken = true
    }
    // At the limit nothing is inserted either, but the alias may exist.
    const existing = await this.findByAlias(input.alias)
    if (existing?.sandboxId !== input.sandboxId) throw isTaken ? aliasTaken(input.alias) : tooMany()
    if (existing.port === input.port) return { record: existing, isNew: false }
    throw new AppError(
      "conflict",
      `the alias "${input.alias}" leads to port ${existing.port} of this sandbox`,
      {
        hint: `choose another one, or unpublish port ${existing.port} with --alias ${input.alias} first`,
      },
    )
  }

  /** Publishes under that alias if the port has none; otherwise returns the existing one with `isNew: false`. */
  async addFirst(input: NewPublishedPort): Promise<{ record: PublishedPortRecord; isNew: boolean }> {
    const isFirst = sql<boolean>`not exists
      (select 1 from published_ports where sandbox_id = ${input.sandboxId} and port = ${input.port})`
    const record = await this.#insert(input, isFirst)
    if (record) return { record, isNew: true }
    const [oldest] = await this.#aliasesOf(input.sandboxId, input.port)
    if (oldest) return { record: oldest, isNew: false }
    throw tooMany()
  }

  /** Returns undefined if the condition does not hold, or the sandbox has reached its limit of aliases. */
  async #insert(
    input: NewPublishedPort,
    condition: RawBuilder<boolean>,
  ): Promise<PublishedPortRecord | undefined> {
    const row: PublishedPortRow = {
      id: `pub_${randomHex(8)}`,
      sandbox_id: input.sandboxId,
      port: input.port,
      alias: input.alias,
      created_at: new Date().toISOString(),
    }
    const insert = sql<{ id: string }>`
      insert into published_ports (id, sandbox_id, port, alias, created_at)
      select ${row.id}, ${row.sandbox_id}, ${row.port}, ${row.alias}, ${row.created_at}
      where ${condition}
        and (select count(*) from published_ports where sandbox_id = ${row.sandbox_id}) < ${limits.publishedPortsMax}
      returning id`
    try {
      const { rows } = await insert.execute(this.#db)
      return rows.length > 0 ? toRecord(row) : undefined
    } catch (error) {
      if (!isForeignKeyViolation(error)) throw error
      throw new AppError("not_found", "the sandbox was destroyed meanwhile", { hint: "bhatti list" })
    }
  }

  /** Oldest first. */
  async #aliasesOf(sandboxId: SandboxId, port: number): Promise<PublishedPortRecord[]> {
    return (await this.listOf([sandboxId])).filter((one) => one.port === port)
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
      // One parameter: separate statements for every number of ids would each have to be prepared.
      .where("sandbox_id", "in", sql<SandboxId>`(select value from json_each(${JSON.stringify(sandboxIds)}))`)
      .orderBy("created_at")
      // Orders rows of the same millisecond.
      .orderBy(sql`rowid`)
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

function aliasTaken(alias: string): AppError {
  return new AppError("conflict", `the alias "${alias}" is taken`, {
    hint: "choose another one with --alias",
  })
}

function tooMany(): AppError {
  return new AppError(
    "limit_exceeded",
    `the published ports of a sandbox have at most ${limits.publishedPortsMax} aliases`,
    { hint: "bhatti unpublish one of them" },
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
