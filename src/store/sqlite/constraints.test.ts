/** The names of the constraints match the database's own. */

import { Database } from "bun:sqlite"
import { afterEach, beforeEach, expect, test } from "bun:test"
import { mkdtempSync, rmSync } from "node:fs"
import { join } from "node:path"
import { openStore } from "../store.ts"
import { constraints } from "./constraints.ts"

let directory: string
beforeEach(() => {
  directory = mkdtempSync("/tmp/bhatti-constraints-")
})
afterEach(() => rmSync(directory, { recursive: true }))

test("every unique constraint besides the ids has a name", async () => {
  await (await openStore({ dataDir: directory })).close()
  using database = new Database(join(directory, "bhatti.db"), { readonly: true })
  const found = database
    .query<{ columns: string }, []>(
      `select (select group_concat(t.name || '.' || c.name, ', ') from pragma_index_info(i.name) c) as columns
       from sqlite_schema t, pragma_index_list(t.name) i
       where t.type = 'table' and t.name not like 'kysely_%' and i."unique" = 1`,
    )
    .all()
    .map(({ columns }) => columns)
    .filter((columns) => !/^\w+\.id$/.test(columns))
  expect(Object.values(constraints).sort()).toEqual(found.sort())
})
