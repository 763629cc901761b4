/** A database decides about the sandboxes beside it only if it is theirs. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs"
import { join } from "node:path"
import { openStore } from "./store.ts"

let dataDir = ""
const path = (name: string) => join(dataDir, name)
const open = () => openStore({ dataDir })
const markNow = () => JSON.parse(readFileSync(path("installation.json"), "utf8")) as { counter: number }

beforeEach(async () => {
  dataDir = mkdtempSync("/tmp/bhatti-store-")
  await using store = closing(await open())
  await store.users.create({ name: "ann" })
  mkdirSync(path("sandboxes/sb_0123456789abcdef"), { recursive: true })
})

afterEach(() => rmSync(dataDir, { recursive: true, force: true }))

function closing<T extends { close(): Promise<void> }>(store: T): T & AsyncDisposable {
  return Object.assign(store, { [Symbol.asyncDispose]: () => store.close() })
}

/** All files with their content, the ones that SQLite makes to look at a database left out. */
function contents(): Record<string, string> {
  const names = readdirSync(dataDir).filter(
    (name) => !/-(wal|shm)$/.test(name) && statSync(path(name)).isFile(),
  )
  return Object.fromEntries(names.map((name) => [name, readFileSync(path(name), "latin1")]))
}

const flipped = (bytes: Buffer, at: number) => {
  const copy = Buffer.from(bytes)
  copy[at] = (copy[at] ?? 0) ^ 0x10
  return copy
}

test.each([
  ["missing", () => rmSync(path("bhatti.db"))],
  ["empty", () => writeFileSync(path("bhatti.db"), "")],
  ["cut", () => writeFileSync(path("bhatti.db"), readFileSync(path("bhatti.db")).subarray(0, 9000))],
  ["of other content", () => writeFileSync(path("bhatti.db"), "something else".repeat(1000))],
  [
    "damaged by one byte",
    () => writeFileSync(path("bhatti.db"), flipped(readFileSync(path("bhatti.db")), 4096 + 3)),
  ],
])("a database that is %s is refused with the way out, and nothing is changed", async (_, damage) => {
  damage()
  const before = contents()
  await expect(open()).rejects.toMatchObject({
    code: "unavailable",
    retryable: false,
    message: expect.stringContaining("1 sandbox and 0 snapshots"),
    hint: expect.stringContaining("bhatti admin recover"),
  })
  expect(contents()).toEqual(before)
  expect(existsSync(path("sandboxes/sb_0123456789abcdef"))).toBe(true)
})

test("an older copy of the database is refused, and the newer one is taken", async () => {
  copyFileSync(path("bhatti.db"), path("older"))
  {
    await using store = closing(await open())
    await store.users.create({ name: "bob" })
  }
  copyFileSync(path("bhatti.db"), path("newer"))
  copyFileSync(path("older"), path("bhatti.db"))
  await expect(open()).rejects.toMatchObject({ message: expect.stringContaining("is older than") })
  copyFileSync(path("newer"), path("bhatti.db"))
  await using store = closing(await open())
  expect((await store.users.listForOperator()).map(({ name }) => name)).toEqual(["ann", "bob"])
})

test("another installation's database is refused", async () => {
  const other = mkdtempSync("/tmp/bhatti-store-")
  await (await openStore({ dataDir: other })).close()
  copyFileSync(join(other, "bhatti.db"), path("bhatti.db"))
  rmSync(other, { recursive: true })
  await expect(open()).rejects.toMatchObject({ message: expect.stringContaining("another installation") })
})

test("a directory with sandboxes and no mark has lost its database too", async () => {
  for (const name of ["bhatti.db", "installation.json"]) rmSync(path(name))
  await expect(open()).rejects.toMatchObject({ message: expect.stringContaining("is missing") })
  expect(existsSync(path("bhatti.db"))).toBe(false)
})

test.each(["missing", "empty", "cut", "flipped"])("a mark that is %s is written again", async (how) => {
  const before = readFileSync(path("installation.json"))
  if (how === "missing") rmSync(path("installation.json"))
  else if (how === "flipped") writeFileSync(path("installation.json"), flipped(before, 12))
  else writeFileSync(path("installation.json"), how === "empty" ? "" : before.subarray(0, 9))
  await using store = closing(await open())
  expect(markNow()).toMatchObject(await store.installation())
})

test("a mark that is older than the database is no fault: a crash came between the two", async () => {
  const older = readFileSync(path("installation.json"))
  {
    await using store = closing(await open())
    await store.users.create({ name: "bob" })
  }
  writeFileSync(path("installation.json"), older)
  await using store = closing(await open())
  expect(markNow()).toMatchObject(await store.installation())
})

test("every change of users, sandboxes, secrets, ports and snapshots counts, and events do not", async () => {
  await using store = closing(await open())
  const count = async () => (await store.installation()).counter
  const before = await count()
  await store.users.rotateKey("ann")
  expect(await count()).toBe(before + 1)
  await store.events.add([])
  expect(await count()).toBe(before + 1)
  await store.users.remove("ann")
  expect(await count()).toBe(before + 2)
})

test("a row that cannot be read is a damaged database", async () => {
  const { Database } = await import("bun:sqlite")
  const database = new Database(path("bhatti.db"))
  const { id } = database.query<{ id: string }, []>("select id from users").get() ?? { id: "" }
  database.run(`insert into sandboxes (id, user_id, name, state, slot, created_at)
    values ('sb_0123456789abcdef', '${id}', 'dev', '{"kinf":"cold"}', 1, 'now')`)
  database.close()
  await expect(open()).rejects.toMatchObject({ message: expect.stringContaining("is damaged") })
})

test.each(["missing", "empty", "cut", "flipped"])(
  "age.key that is %s is refused while secrets need it",
  async (how) => {
    {
      await using store = closing(await open())
      const { key } = await store.users.rotateKey("ann")
      const account = await store.users.findByKey(key)
      if (!account) throw new Error("no account")
      await store.secrets.set(account.id, "TOKEN", "value")
    }
    const whole = readFileSync(path("age.key"))
    if (how === "missing") rmSync(path("age.key"))
    else {
      const cut = how === "flipped" ? flipped(whole, 30) : whole.subarray(0, how === "empty" ? 0 : 40)
      writeFileSync(path("age.key"), cut)
    }
    const before = contents()
    await expect(open()).rejects.toMatchObject({
      hint: expect.stringContaining("admin recover --drop-secrets"),
    })
    expect(contents()).toEqual(before)
    await (await openStore({ dataDir, isRecovery: true, dropSecrets: true })).close()
    await (await open()).close()
  },
)

test("the database is copied before a migration and once a day, privately, and few copies are kept", async () => {
  const copies = () => readdirSync(path("database-copies")).sort()
  await using store = closing(await open())
  await store.copyDaily()
  await store.copyDaily()
  expect(copies()).toEqual([expect.stringMatching(/^\d{8}T\d{6}Z-daily\.db$/)])
  const [name = ""] = copies()
  expect(statSync(path(`database-copies/${name}`)).mode & 0o777).toBe(0o600)
  rmSync(path(`database-copies/${name}`))
  for (let day = 1; day <= 15; day++)
    copyFileSync(
      path("bhatti.db"),
      path(`database-copies/202501${String(day).padStart(2, "0")}T000000Z-daily.db`),
    )
  await store.copyDaily()
  expect(copies()).toHaveLength(10)
  expect(copies()[0]).toBe("20250107T000000Z-daily.db")
})

test("a copy is made before the database is brought up to date", async () => {
  const { Database } = await import("bun:sqlite")
  const database = new Database(path("bhatti.db"))
  database.run("drop table api_keys")
  database.run("delete from kysely_migration where name = '0015-api-keys'")
  database.close()
  await (await open()).close()
  expect(readdirSync(path("database-copies"))).toEqual([
    expect.stringMatching(/^\d{8}T\d{6}Z-before-0015-api-keys\.db$/),
  ])
})
