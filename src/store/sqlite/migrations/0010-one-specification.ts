/** Stores what a sandbox's owner decides as one JSON value, in sandboxes and in snapshots. */

import { type Kysely, sql } from "kysely"

const columns = {
  sandboxes: [
    ...["image_name", "image_hash", "cpus", "memory_mib", "disk_mib", "env", "secret_names", "labels"],
    ...["keep_hot", "allow_cold", "net_policy", "warm_after_sec", "cold_after_sec", "boot_script"],
  ],
  snapshots: ["image_name", "image_hash", "cpus", "memory_mib", "disk_mib", "inherited"],
}

type Row = Record<string, unknown>

/** Adds the specification to a row that has it in columns. The rows kept beside the disks may be such rows. */
export function withSpec<R extends Row>(row: R): R & { spec?: string } {
  if (row["image_name"] === undefined) return row
  const spec = {
    imageName: row["image_name"],
    imageHash: row["image_hash"],
    cpus: row["cpus"],
    memoryMib: row["memory_mib"],
    diskMib: row["disk_mib"],
    ...("inherited" in row ? { ...read(row["inherited"]), secretNames: [] } : ofSandbox(row)),
  }
  return { ...row, spec: JSON.stringify(spec) }
}

function ofSandbox(row: Row): Row {
  return {
    env: read(row["env"]),
    secretNames: read(row["secret_names"]),
    labels: read(row["labels"]),
    keepHot: row["keep_hot"] === 1,
    allowCold: row["allow_cold"] === 1,
    netPolicy: read(row["net_policy"]),
    warmAfterSec: row["warm_after_sec"],
    coldAfterSec: row["cold_after_sec"],
    bootScript: row["boot_script"],
  }
}

/** Returns undefined for text that is no JSON: the row stays, and is reported as damaged. */
function read(text: unknown): Row | undefined {
  try {
    return JSON.parse(String(text))
  } catch {
    return undefined
  }
}

/** Safe to repeat. */
export async function up(db: Kysely<unknown>): Promise<void> {
  const tables = await db.introspection.getTables()
  if (tables.some((table) => table.columns.some(({ name }) => name === "spec"))) return
  for (const table of ["sandboxes", "snapshots"] as const) {
    const { rows } = await sql<Row>`select * from ${sql.table(table)}`.execute(db)
    await db.schema.alterTable(table).addColumn("spec", "text").execute()
    for (const row of rows) {
      const { id, spec } = { ...row, ...withSpec(row) }
      await sql`update ${sql.table(table)} set spec = ${spec} where id = ${id}`.execute(db)
    }
    for (const column of columns[table]) await db.schema.alterTable(table).dropColumn(column).execute()
  }
}
