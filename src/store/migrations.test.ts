/** A database of an earlier version keeps its content in an update. */

import { afterEach, beforeEach, describe, expect, test } from "bun:test"
import { mkdtempSync, rmSync } from "node:fs"
import { join } from "node:path"
import { SandboxId, UserId } from "@bhatti/contract/ids"
import { Kysely, sql } from "kysely"
import { type Migration, Migrator } from "kysely/migration"
import { sqliteDialect } from "./sqlite/dialect.ts"
import * as start from "./sqlite/migrations/0001-start.ts"
import * as network from "./sqlite/migrations/0002-network.ts"
import * as snapshotsAndEvents from "./sqlite/migrations/0003-snapshots-and-events.ts"
import * as installation from "./sqlite/migrations/0004-installation.ts"
import * as severalAliases from "./sqlite/migrations/0005-several-aliases.ts"
import * as diskQuotas from "./sqlite/migrations/0006-disk-quotas.ts"
import * as bootScript from "./sqlite/migrations/0007-boot-script.ts"
import * as batches from "./sqlite/migrations/0008-batches.ts"
import * as socketTickets from "./sqlite/migrations/0009-socket-tickets.ts"
import { openStore } from "./store.ts"

let directory: string
beforeEach(() => {
  directory = mkdtempSync("/tmp/bhatti-migrations-")
})
afterEach(() => rmSync(directory, { recursive: true }))

async function ofVersion(migrations: Record<string, Migration>): Promise<Kysely<unknown>> {
  const db = new Kysely<unknown>({ dialect: sqliteDialect(join(directory, "bhatti.db")) })
  const migrator = new Migrator({ db, provider: { getMigrations: async () => migrations } })
  expect((await migrator.migrateToLatest()).error).toBeUndefined()
  return db
}

test("ports that were published stay so, go with their sandbox, and may get further aliases", async () => {
  const before = await ofVersion({
    "0001-start": start,
    "0002-network": network,
    "0003-snapshots-and-events": snapshotsAndEvents,
  })
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

describe("a specification that was in columns", () => {
  const spec = {
    ...{ imageName: "minimal", imageHash: "hash", cpus: 2, memoryMib: 1024, diskMib: 9000 },
    ...{ env: { A: "é", B: "" }, labels: { team: "x" }, keepHot: true, allowCold: false },
    ...{
      warmAfterSec: 1.5,
      coldAfterSec: 0,
      ttlSec: null,
      onTtl: "pause" as const,
      description: null,
      bootScript: "npm start",
    },
    ...{
      startCommand: null,
      readyCommand: null,
      services: [],
      initSystem: false,
      imageConfig: null,
      mainCommand: null,
    },
    ...{ imageId: null, imageShownAs: null },
    netPolicy: { default: "deny" as const, allow_hosts: ["example.com"], allow_cidrs: [] },
  }

  /** The rows of a sandbox, of one in the pool and of a snapshot, as the version before has written them. */
  async function writeRows(labels = JSON.stringify(spec.labels)): Promise<void> {
    const db = await ofVersion({
      ...{ "0001-start": start, "0002-network": network, "0003-snapshots-and-events": snapshotsAndEvents },
      ...{ "0004-installation": installation, "0005-several-aliases": severalAliases },
      ...{
        "0006-disk-quotas": diskQuotas,
        "0007-boot-script": bootScript,
        "0008-batches": batches,
        "0009-socket-tickets": socketTickets,
      },
    })
    const insert = async (table: string, row: Record<string, string | number | null>) => {
      const names = sql.join(Object.keys(row).map((name) => sql.ref(name)))
      await sql`insert into ${sql.table(table)} (${names}) values (${sql.join(Object.values(row))})`.execute(
        db,
      )
    }
    const created_at = "2026-01-01T00:00:00.000Z"
    const limits = { max_sandboxes: 5, max_cpus: 2, max_memory_mib: 1024 }
    await insert("users", { id: "usr_00000001", name: "alice", key_hash: "hash", ...limits, created_at })
    const size = { image_name: "minimal", image_hash: "hash", cpus: 2, memory_mib: 1024, disk_mib: 9000 }
    const owned = { user_id: "usr_00000001", ...size, template_id: "template", created_at }
    const state = '{"kind":"cold","hasSnapshot":true,"reason":null}'
    await insert("sandboxes", {
      ...{
        ...owned,
        id: "sb_0123456789abcdef",
        name: "dev",
        state,
        slot: 1,
        labels,
        env: JSON.stringify(spec.env),
      },
      ...{
        secret_names: '["TOKEN"]',
        keep_hot: 1,
        allow_cold: 0,
        net_policy: JSON.stringify(spec.netPolicy),
      },
      ...{ warm_after_sec: 1.5, cold_after_sec: 0, boot_script: spec.bootScript, used_mib: 7, in_batch: 0 },
    })
    await insert("sandboxes", {
      ...{
        ...owned,
        user_id: null,
        id: "sb_fedcba9876543210",
        name: "sb_fedcba9876543210",
        slot: 2,
        labels: "{}",
      },
      ...{ state: '{"kind":"creating"}', env: "{}", secret_names: "[]", keep_hot: 0, allow_cold: 1 },
    })
    const { env, labels: own, keepHot, allowCold, warmAfterSec, coldAfterSec, netPolicy } = spec
    const inherited = { env, labels: own, keepHot, allowCold, warmAfterSec, coldAfterSec, netPolicy }
    await insert("snapshots", {
      ...{ ...owned, id: "snap_0123456789abcdef", name: "kept", state: "ready", has_memory: 1, bytes: 5 },
      ...{ source_id: "sb_0123456789abcdef", source_name: "dev", inherited: JSON.stringify(inherited) },
    })
    await db.destroy()
  }

  test("is whole after an update, with the rest of its row, in a sandbox and in a snapshot", async () => {
    await writeRows()
    for (let opened = 0; opened < 2; opened++) {
      const store = await openStore({ dataDir: directory })
      try {
        const [sandbox] = await store.sandboxes.listOnHost()
        expect(sandbox).toEqual({
          ...{ ...spec, id: SandboxId.parse("sb_0123456789abcdef"), userId: UserId.parse("usr_00000001") },
          ...{
            name: "dev",
            slot: 1,
            templateId: "template",
            usedMib: 7,
            address: null,
            bootReason: null,
            isInBatch: false,
            lifetime: null,
            stopped: null,
          },
          ...{ secretNames: ["TOKEN"], createdAt: "2026-01-01T00:00:00.000Z" },
          state: { kind: "cold", hasSnapshot: true, reason: null },
        })
        // That snapshot was taken before snapshots had boot scripts.
        expect(await store.snapshots.listOnHost()).toEqual([
          expect.objectContaining({ ...spec, secretNames: [], bootScript: null, name: "kept", bytes: 5 }),
        ])
        expect(await store.sandboxes.listPooledOnHost()).toHaveLength(1)
      } finally {
        await store.close()
      }
    }
  })

  test("is reported as damaged if a part of it cannot be read, and no row is lost", async () => {
    await writeRows("{")
    const open = openStore({ dataDir: directory })
    await expect(open).rejects.toMatchObject({ message: expect.stringContaining("is damaged") })
    const recovering = await openStore({ dataDir: directory, isRecovery: true })
    try {
      expect(await recovering.recovery.damagedRows()).toEqual(["sb_0123456789abcdef"])
    } finally {
      await recovering.close()
    }
  })
})

test("an update that fails in the middle leaves the database as it was", async () => {
  const broken: Migration = {
    async up(db) {
      await db.schema.createTable("half").addColumn("id", "text").execute()
      throw new Error("no power")
    },
  }
  const db = new Kysely<unknown>({ dialect: sqliteDialect(join(directory, "bhatti.db")) })
  const migrations = { "0001-start": start, "0002-broken": broken }
  const migrator = new Migrator({ db, provider: { getMigrations: async () => migrations } })
  expect((await migrator.migrateToLatest()).error).toMatchObject({ message: "no power" })
  await db.destroy()
  const again = await ofVersion({ "0001-start": start })
  const { rows } = await sql`select name from sqlite_schema where name = 'half'`.execute(again)
  expect(rows).toEqual([])
  await again.destroy()
})
