/** The file that holds a SQLite database: its check, its copies, and its durability. */

import { Database } from "bun:sqlite"
import { type Kysely, sql } from "kysely"
import { errorCodeOf } from "../../lib/error-code.ts"
import type { Mark } from "../mark.ts"
import type { Schema } from "../schema.ts"

/** Unreadable for a reason other than its content; opening it for use reports that. */
export type Inspected =
  | { kind: "whole"; mark: Mark | undefined }
  | { kind: "damaged" }
  | { kind: "unreadable" }

/** Leaves the file unchanged. */
export function inspect(path: string): Inspected {
  let database: Database | undefined
  try {
    database = new Database(path, { readonly: true, strict: true })
    database.run("pragma busy_timeout = 5000")
    const words = database.query<{ quick_check: string }, []>("pragma quick_check(1)").get()
    if (words?.quick_check !== "ok") return { kind: "damaged" }
    const has = database
      .query("select 1 from sqlite_schema where type = 'table' and name = 'installation'")
      .get()
    if (!has) return { kind: "whole", mark: undefined }
    const mark = database.query<Mark, []>("select id, counter from installation").get()
    return { kind: "whole", mark: mark ?? undefined }
  } catch (error) {
    const code = errorCodeOf(error) ?? ""
    if (/^SQLITE_(NOTADB|CORRUPT|ERROR)/.test(code)) return { kind: "damaged" }
    if (code.startsWith("SQLITE_")) return { kind: "unreadable" }
    throw error
  } finally {
    database?.close()
  }
}

/**
 * Writes a copy to an empty file that exists. SQLite makes it itself: opening the database a second time here would
 * release the locks that this process holds on it.
 */
export async function copyInto(db: Kysely<Schema>, path: string): Promise<void> {
  await sql`vacuum into ${path}`.execute(db)
}

/** Makes the database a single file, without a write-ahead log. */
export async function toSingleFile(db: Kysely<Schema>): Promise<void> {
  await sql`pragma journal_mode = delete`.execute(db)
}
