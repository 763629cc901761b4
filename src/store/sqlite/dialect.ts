/**
 * Kysely's SQLite dialect over Bun's driver. One process-wide connection; a write-ahead log lets the operator's
 * commands work while the daemon runs.
 */

import { Database } from "bun:sqlite"
import { chmodSync } from "node:fs"
import { AppError } from "@bhatti/contract/errors"
import { SqliteAdapter, type SqliteDatabase, SqliteDialect } from "kysely"
import { errorCodeOf } from "../../lib/error-code.ts"

const busyTimeoutMs = 5000

/** `path` is a file, or `:memory:`. */
export function sqliteDialect(path: string): SqliteDialect {
  let database: Database
  try {
    database = new Database(path, { create: true, strict: true })
    if (path !== ":memory:") chmodSync(path, 0o600)
    database.run(`pragma busy_timeout = ${busyTimeoutMs}`)
    database.run("pragma journal_mode = wal")
    database.run("pragma synchronous = normal")
    database.run("pragma foreign_keys = on")
  } catch (cause) {
    throw new AppError("unavailable", `cannot open the database ${path}`, {
      cause,
      hint: "check that the file is intact and writable for you (the daemon runs as root)",
      retryable: false,
    })
  }
  return new Dialect({ database: adapt(database) })
}

/** Makes Kysely run migrations and their record in one transaction, so that a power cut leaves all of them or none. */
class Dialect extends SqliteDialect {
  override createAdapter(): SqliteAdapter {
    return new TransactionalAdapter()
  }
}

class TransactionalAdapter extends SqliteAdapter {
  override get supportsTransactionalDdl(): boolean {
    return true
  }
}

function adapt(database: Database): SqliteDatabase {
  return {
    close: () => database.close(),
    prepare: (sql) => {
      const statement = database.query<unknown, never[]>(sql)
      return {
        reader: statement.columnNames.length > 0,
        all: (parameters) => usable(() => statement.all(...(parameters as never[]))),
        run: (parameters) => {
          // A failed disk may have ended the transaction already; its error must not be replaced by this one's.
          if (sql === "rollback" && !database.inTransaction) return { changes: 0, lastInsertRowid: 0 }
          return usable(() => statement.run(...(parameters as never[])))
        },
        iterate: (parameters) => statement.iterate(...(parameters as never[])) as IterableIterator<unknown>,
      }
    },
  }
}

/** Reports failures of the host's disk as such, rather than as a failed statement. */
function usable<T>(work: () => T): T {
  try {
    return work()
  } catch (cause) {
    const code = errorCodeOf(cause)
    if (code === "SQLITE_FULL") {
      throw new AppError("unavailable", "the host's disk is full: bhatti's database cannot be written", {
        cause: Object.assign(new Error("the database cannot grow", { cause }), { code: "ENOSPC" }),
        hint: "free some space in the data directory's file system, then try again",
      })
    }
    if (code?.startsWith("SQLITE_READONLY")) {
      throw new AppError("unavailable", "bhatti's database cannot be written", {
        cause,
        hint: "the file or its file system is read-only; the host's kernel log may say why",
      })
    }
    if (code === "SQLITE_BUSY" || code?.startsWith("SQLITE_IOERR")) {
      throw new AppError("unavailable", "bhatti's database cannot be used now", {
        cause,
        hint: "try again; the daemon's log says why",
      })
    }
    throw cause
  }
}
