/** Errors of a database that cannot be used. */

import { expect, test } from "bun:test"
import { Kysely, sql } from "kysely"
import { sqliteDialect } from "./dialect.ts"

test("a database that may not be written now is the host's fault, and no bug", async () => {
  const db = new Kysely({ dialect: sqliteDialect(":memory:") })
  try {
    await sql`create table things (name text)`.execute(db)
    await sql`pragma query_only = on`.execute(db)
    const written = sql`insert into things values ('one')`.execute(db)
    await expect(written).rejects.toMatchObject({
      code: "unavailable",
      hint: expect.stringContaining("read-only"),
    })
    expect((await sql`select * from things`.execute(db)).rows).toEqual([])
  } finally {
    await db.destroy()
  }
})

test("a disk that is full amid a transaction is told as such, and nothing of it stays", async () => {
  const db = new Kysely<{ things: { name: string } }>({ dialect: sqliteDialect(":memory:") })
  try {
    await sql`create table things (name text)`.execute(db)
    await sql`pragma max_page_count = 20`.execute(db)
    const written = db.transaction().execute(async (db) => {
      for (let count = 0; count < 100; count++)
        await db
          .insertInto("things")
          .values({ name: "x".repeat(4000) })
          .execute()
    })
    await expect(written).rejects.toMatchObject({
      code: "unavailable",
      message: expect.stringContaining("disk is full"),
    })
    expect(await db.selectFrom("things").selectAll().execute()).toEqual([])
    await db.insertInto("things").values({ name: "one" }).execute()
  } finally {
    await db.destroy()
  }
})
