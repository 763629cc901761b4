/**
 * A database is made to fit its data directory: each disk gets its own row again, and a recovery that fails leaves the
 * refusal in force.
 */

import { Database } from "bun:sqlite"
import { afterEach, beforeEach, expect, test } from "bun:test"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { aSandbox } from "../test/support/store-suite.ts"
import { recover } from "./recover.ts"
import { writeMark } from "./store/mark.ts"
import { writeSpec } from "./store/sandbox-spec.ts"
import { openStore } from "./store/store.ts"

let dataDir = ""
let userId = ""
let slot = 0
const umask = process.umask()
const path = (name: string) => join(dataDir, name)
const run = () => recover({ dataDir, dropSecrets: false })
const idOf = (letter: string) => `sb_${letter.repeat(16)}`

/** With `pooled` it is nobody's yet. */
function addRow(letter: string, name: string, owner: "ann" | "pooled" = "ann"): void {
  using database = new Database(path("bhatti.db"))
  const state = owner === "ann" ? '{"kind":"cold","hasSnapshot":false,"reason":null}' : '{"kind":"creating"}'
  slot++
  database.run(
    `insert into sandboxes (id, user_id, name, state, slot, spec, created_at, template_id)
     values (?, ?, ?, ?, ?, ?, '2026-01-01T00:00:00.000Z', 't')`,
    [idOf(letter), owner === "ann" ? userId : null, name, state, slot, writeSpec(aSandbox(name))],
  )
}

/** Writes the directory's records as the database has the rows now. */
async function keepRows(change: (row: Record<string, unknown>) => void = () => {}): Promise<void> {
  const store = await openStore({ dataDir })
  try {
    for (const { state: _, ...kept } of await store.recovery.rowsToKeep()) {
      change(kept.row)
      const directory = path(`sandboxes/${kept.row.id}`)
      mkdirSync(directory, { recursive: true })
      writeFileSync(join(directory, "record.json"), JSON.stringify({ ...kept, diskStamp: null }))
    }
  } finally {
    await store.close()
  }
}

/** The database is of an earlier time than its directory. */
async function makeOlder(changes = 4): Promise<void> {
  const { id, counter } = JSON.parse(readFileSync(path("installation.json"), "utf8"))
  await writeMark(dataDir, { id, counter: counter + changes })
}

function rows(): { id: string; name: string; slot: number }[] {
  using database = new Database(path("bhatti.db"), { readonly: true })
  return database
    .query<{ id: string; name: string; slot: number }, []>("select id, name, slot from sandboxes order by id")
    .all()
}

beforeEach(async () => {
  dataDir = mkdtempSync("/tmp/bhatti-recover-")
  slot = 0
  const store = await openStore({ dataDir })
  userId = (await store.users.create({ name: "ann" })).user.id
  await store.close()
})

afterEach(() => {
  // A recovery is a program of its own, which sets its umask.
  process.umask(umask)
  rmSync(dataDir, { recursive: true, force: true })
})

test("names and slots of rows that are stale are free for the sandboxes that have them now", async () => {
  addRow("a", "dev")
  addRow("b", "work")
  addRow("c", "one")
  addRow("d", "two")
  await keepRows((row) => {
    if (row["name"] === "one") row["name"] = "two"
    else if (row["name"] === "two") row["name"] = "one"
  })
  const now = [
    { id: idOf("a"), name: "dev", slot: 1 },
    { id: idOf("b"), name: "work", slot: 2 },
    { id: idOf("c"), name: "two", slot: 3 },
    { id: idOf("d"), name: "one", slot: 4 },
  ]
  {
    using database = new Database(path("bhatti.db"))
    database.run("delete from sandboxes where id in (?, ?)", [idOf("a"), idOf("b")])
  }
  slot = 0
  addRow("e", "dev")
  addRow("f", "pooled", "pooled")
  await makeOlder(100)
  const { notes, sandboxes } = await run()
  expect(rows()).toEqual(now)
  expect(sandboxes).toHaveLength(4)
  expect(notes).toEqual([`sandbox ${idOf("e")} has no directory any more, and its row is removed`])
  await (await openStore({ dataDir })).close()
})

test("a record that cannot be put back is told, and the others are put back", async () => {
  for (const [letter, name] of [["a", "first"] as const, ["b", "broken"] as const, ["c", "last"] as const])
    addRow(letter, name)
  await keepRows((row) => {
    if (row["name"] === "broken") row["spec"] = "{}"
  })
  for (const name of ["bhatti.db", "bhatti.db-wal", "bhatti.db-shm"]) rmSync(path(name), { force: true })
  const { notes, sandboxes, users } = await run()
  expect(sandboxes.map(({ name }) => name)).toEqual(["first", "last"])
  expect(users.map(({ name }) => name)).toEqual(["ann"])
  expect(notes).toEqual([expect.stringContaining(`the row of sandbox ${idOf("b")} could not be put back: `)])
})

test("records that an earlier version has kept beside disks and snapshots are put back whole", async () => {
  const common = { user_id: userId, image_name: "minimal", image_hash: "h", cpus: 2, memory_mib: 1024 }
  const sandbox = {
    ...common,
    id: idOf("a"),
    name: "dev",
    slot: 3,
    template_id: "t",
    disk_mib: 9000,
    used_mib: 0,
  }
  const policy = { default: "deny", allow_hosts: ["a.example"], allow_cidrs: [] }
  const settings = {
    keep_hot: 1,
    allow_cold: 0,
    warm_after_sec: 1.5,
    cold_after_sec: null,
    boot_script: "true",
  }
  const texts = { env: '{"A":"b"}', secret_names: '["TOKEN"]', labels: '{"team":"x"}' }
  const snapshot = {
    ...common,
    id: `snap_${"b".repeat(16)}`,
    name: "kept",
    source_id: idOf("a"),
    source_name: "dev",
  }
  const inherited = { env: { A: "b" }, labels: {}, keepHot: true, allowCold: false, warmAfterSec: 2 }
  const keep = (kind: "sandbox" | "snapshot", row: Record<string, unknown>) => {
    const directory = path(`${kind === "sandbox" ? "sandboxes" : "snapshots"}/${row["id"]}`)
    mkdirSync(directory, { recursive: true })
    const kept = { kind, owner: { id: userId, name: "ann" }, row, ports: [], diskStamp: null }
    writeFileSync(join(directory, "record.json"), JSON.stringify(kept))
  }
  const created_at = "2026-01-01T00:00:00.000Z"
  const net_policy = JSON.stringify(policy)
  keep("sandbox", {
    ...sandbox,
    ...settings,
    ...texts,
    net_policy,
    address: null,
    boot_reason: null,
    created_at,
  })
  keep("snapshot", {
    ...{ ...snapshot, state: "ready", template_id: "t", disk_mib: 9000, has_memory: 1, bytes: 5, created_at },
    inherited: JSON.stringify({ ...inherited, coldAfterSec: 3, netPolicy: policy }),
  })
  rmSync(path("bhatti.db"))
  expect((await run()).notes).toEqual([])
  const store = await openStore({ dataDir })
  try {
    const spec = { imageName: "minimal", imageHash: "h", cpus: 2, memoryMib: 1024, diskMib: 9000 }
    expect(await store.sandboxes.listOnHost()).toEqual([
      expect.objectContaining({
        ...{ ...spec, env: { A: "b" }, secretNames: ["TOKEN"], labels: { team: "x" }, keepHot: true },
        ...{ allowCold: false, netPolicy: policy, warmAfterSec: 1.5, coldAfterSec: null, bootScript: "true" },
      }),
    ])
    expect(await store.snapshots.listOnHost()).toEqual([
      expect.objectContaining({
        ...{ ...spec, ...inherited, coldAfterSec: 3, netPolicy: policy, secretNames: [], bootScript: null },
      }),
    ])
  } finally {
    await store.close()
  }
})

test.each([
  ["is older", async () => makeOlder()],
  ["is lost", async () => rmSync(path("bhatti.db"))],
  [
    "is lost with its mark",
    async () => {
      rmSync(path("bhatti.db"))
      rmSync(path("installation.json"))
    },
  ],
])(
  "a recovery of a database that %s and fails leaves the refusal in force, and can be repeated",
  async (_, lose) => {
    addRow("a", "dev")
    addRow("b", "work")
    await keepRows()
    await lose()
    const mark = () => {
      try {
        return readFileSync(path("installation.json"), "utf8")
      } catch {
        return undefined
      }
    }
    const before = mark()
    // Where a directory belongs, so that a later step fails.
    writeFileSync(path("snapshots"), "")
    await expect(run()).rejects.toThrow()
    expect(mark()).toBe(before)
    await expect(openStore({ dataDir })).rejects.toMatchObject({
      hint: expect.stringContaining("admin recover"),
    })
    rmSync(path("snapshots"))
    expect((await run()).sandboxes.map(({ name }) => name)).toEqual(["dev", "work"])
    const store = await openStore({ dataDir })
    expect((await store.sandboxes.listOnHost()).map(({ name }) => name)).toEqual(["dev", "work"])
    await store.close()
  },
)
