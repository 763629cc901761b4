/** A database of an earlier version keeps its content in an update. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { mkdtempSync, rmSync } from "node:fs"
import { join } from "node:path"
import { SandboxId } from "@bhatti/contract/ids"
import { Kysely, sql } from "kysely"
import { Migrator } from "kysely/migration"
import * as start from "./migrations/0001-start.ts"
import * as network from "./migrations/0002-network.ts"
import * as snapshotsAndEvents from "./migrations/0003-snapshots-and-events.ts"
import { sqliteDialect } from "./sqlite/dialect.ts"
import { openStore } from "./store.ts"

let directory: string
beforeEach(() => {
  directory = mkdtempSync("/tmp/bhatti-migrations-")
})
afterEach(() => rmSync(directory, { recursive: true }))

test("ports that were published stay so, go with their sandbox, and may get further aliases", async () => {
  const before = new Kysely<unknown>({ dialect: sqliteDialect(join(directory, "bhatti.db")) })
  const migrations = {
    "0001-start": start,
    "0002-network": network,
    "0003-snapshots-and-events": snapshotsAndEvents,
  }
  const { error } = await new Migrator({
    db: before,
    provider: { getMigrations: async () => migrations },
  }).migrateToLatest()
  expect(error).toBeUndefined()
  const id = SandboxId.parse("sb_0123456789abcdef")
  await sql`insert into users values ('usr_00000001', 'alice', 'hash', 5, 2, 1024, '2026-01-01T00:00:00.000Z')`.execute(
    before,
  )
  await sql`
    insert into sandboxes (id, user_id, name, state, slot, image_name, image_hash, cpus, memory_mib, disk_mib, env,
                           secret_names, labels, keep_hot, allow_cold, created_at)
    values (${id}, 'usr_00000001', 'dev', '{"kind":"cold","hasSnapshot":false,"reason":null}', 1, 'minimal', 'hash', 1, 512,
            8192, '{}', '[]', '{}', 0, 1, '2026-01-01T00:00:00.000Z')`.execute(before)
  for (const [port, alias] of [
    [3001, "web"],
    [3000, "app"],
  ]) {
    const row = [`pub_${port}`, id, port, alias, "2026-01-01T00:00:00.000Z"]
    await sql`insert into published_ports values (${sql.join(row)})`.execute(before)
  }
  await before.destroy()

  const store = await openStore({ dataDir: directory })
  try {
    const { publishedPorts, sandboxes } = store
    const aliases = async () =>
      (await publishedPorts.listOf([id])).map(({ port, alias }) => `${port} ${alias}`)
    expect(await aliases()).toEqual(["3001 web", "3000 app"])
    expect((await publishedPorts.add({ sandboxId: id, port: 3000, alias: "more" })).isNew).toBe(true)
    expect(await aliases()).toEqual(["3001 web", "3000 app", "3000 more"])
    await sandboxes.remove(id)
    expect(await publishedPorts.findByAlias("more")).toBeUndefined()
    const gone = publishedPorts.add({ sandboxId: id, port: 3000, alias: "late" })
    await expect(gone).rejects.toMatchObject({ code: "not_found" })
  } finally {
    await store.close()
  }
})
