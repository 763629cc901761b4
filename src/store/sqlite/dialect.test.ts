/** What a database that cannot be used says. */

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
