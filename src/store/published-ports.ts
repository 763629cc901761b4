/** Published ports: which alias leads to which port of which sandbox. An alias belongs to one sandbox on the whole host. */

import { type Kysely, sql } from "kysely"
import { AppError } from "../contract/errors.ts"
import { limits } from "../contract/limits.ts"
import { SandboxId } from "../contract/sandbox.ts"
import type { PublishedPortRow, Schema } from "./schema.ts"
import { isUniqueViolation } from "./sqlite.ts"

export type PublishedPortRecord = {
  id: string
  sandboxId: SandboxId
  port: number
  alias: string
  createdAt: string
}

export class PublishedPorts {
  readonly #db: Kysely<Schema>

  constructor(db: Kysely<Schema>) {
    this.#db = db
  }

  /** Publishing again what is published already gives what there is. */
  async add(input: { sandboxId: SandboxId; port: number; alias: string }): Promise<PublishedPortRecord> {
    const row: PublishedPortRow = {
      id: `pub_${Buffer.from(crypto.getRandomValues(new Uint8Array(8))).toString("hex")}`,
      sandbox_id: input.sandboxId,
      port: input.port,
      alias: input.alias,
      created_at: new Date().toISOString(),
    }
    try {
      const { rows } = await sql<{ id: string }>`
        insert into published_ports (id, sandbox_id, port, alias, created_at)
        select ${row.id}, ${row.sandbox_id}, ${row.port}, ${row.alias}, ${row.created_at}
        where (select count(*) from published_ports where sandbox_id = ${row.sandbox_id}) < ${limits.publishedPortsMax}
        returning id`.execute(this.#db)
      if (rows.length > 0) return toRecord(row)
    } catch (error) {
      if (isUniqueViolation(error, "published_ports.alias")) {
        throw new AppError("conflict", `the alias "${input.alias}" is taken`, {
          hint: "choose another one with --alias",
        })
      }
      if (!isUniqueViolation(error, "published_ports.sandbox_id")) throw error
      throw new AppError("conflict", `port ${input.port} is published already`, {
        hint: "unpublish it first to change its alias",
      })
    }
    throw new AppError("limit_exceeded", `a sandbox publishes at most ${limits.publishedPortsMax} ports`)
  }

  async find(sandboxId: SandboxId, port: number): Promise<PublishedPortRecord | undefined> {
    const row = await this.#db
      .selectFrom("published_ports")
      .selectAll()
      .where("sandbox_id", "=", sandboxId)
      .where("port", "=", port)
      .executeTakeFirst()
    return row && toRecord(row)
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
      // One parameter: a statement of its own for every number of them would have to be prepared each time.
      .where("sandbox_id", "in", sql<SandboxId>`(select value from json_each(${JSON.stringify(sandboxIds)}))`)
      .orderBy("created_at")
      .execute()
    return rows.map(toRecord)
  }

  /** False: it was not published. */
  async remove(sandboxId: SandboxId, port: number): Promise<boolean> {
    const removed = await this.#db
      .deleteFrom("published_ports")
      .where("sandbox_id", "=", sandboxId)
      .where("port", "=", port)
      .executeTakeFirst()
    return removed.numDeletedRows > 0n
  }
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
