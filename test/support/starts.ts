/**
 * How the sandboxes of a test installation came into being, so that a run with forks cannot be green on clones alone:
 * `BHATTI_TEST_STARTS=FILE` gets a line of JSON for each installation that ends.
 */

import { Database } from "bun:sqlite"
import { appendFileSync, existsSync } from "node:fs"
import { join } from "node:path"

export type Starts = { image: string; from: string; count: number }[]

const file = process.env["BHATTI_TEST_STARTS"]

/** Reads the events, of which a killed daemon may have kept the last ones for itself. */
export function startsOf(dataDir: string): Starts {
  const path = join(dataDir, "bhatti.db")
  if (!existsSync(path)) return []
  using database = new Database(path, { readonly: true })
  return database
    .query<Starts[number], []>(
      `SELECT meta->>'image' AS image, meta->>'from' AS "from", count(*) AS count FROM events
       WHERE type = 'sandbox.created' GROUP BY 1, 2`,
    )
    .all()
}

/** Never fails: a test may have damaged the database. */
export function noteStarts(dataDir: string): void {
  if (!file) return
  try {
    appendFileSync(file, `${JSON.stringify({ test: Bun.main, starts: startsOf(dataDir) })}\n`)
  } catch (error) {
    appendFileSync(file, `${JSON.stringify({ test: Bun.main, unknown: `${error}` })}\n`)
  }
}
