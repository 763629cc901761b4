/**
 * A data directory whose database is lost or put back: nothing of a sandbox is lost with it, and running ones run on.
 */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { type Installation, install, until } from "../support/installation.ts"

let own: Installation
let key = ""
const path = (name: string) => join(own.dataDir, name)
const files = ["bhatti.db", "bhatti.db-wal", "bhatti.db-shm"]

type Sandbox = { id: string; name: string; status: string }
type Recovered = {
  database: string
  sandboxes: { name: string; user: string }[]
  snapshots: { name: string }[]
  users: { name: string; key: string }[]
}

async function ok(...args: string[]): Promise<string> {
  const { stdout, stderr, exitCode } = await own.bhatti(args, { key })
  if (exitCode !== 0) throw new Error(`${args.join(" ")}: ${stdout}${stderr}`)
  return stdout
}

const list = async () => JSON.parse(await ok("list", "--json")) as Sandbox[]
const idOf = async (name: string) => (await list()).find((one) => one.name === name)?.id ?? ""
const recover = async (...args: string[]) =>
  JSON.parse(await ok("admin", "recover", "--json", "--data-dir", own.dataDir, ...args)) as Recovered

/** Waits until the disks and the mark agree with the database. */
async function untilKept(id: string, has: string): Promise<void> {
  await until(`${id} is kept as it is`, () => {
    const record = path(`sandboxes/${id}/record.json`)
    return existsSync(record) && readFileSync(record, "utf8").includes(has)
  })
}

beforeAll(async () => {
  own = await install()
  key = own.key
  await ok("create", "--name", "running")
  await ok(
    "exec",
    "running",
    "--",
    "bash",
    "-c",
    "echo of the disk > /tmp/mark; echo of memory > /dev/shm/mark; sync",
  )
  await ok("publish", "running", "-p", "80", "-a", "site")
  await ok("create", "--name", "stopped")
  await ok("exec", "stopped", "--", "bash", "-c", "echo of memory > /dev/shm/mark")
  await ok("snapshot", "create", "stopped", "--name", "kept")
  await ok("stop", "stopped")
  await untilKept(await idOf("stopped"), '"diskStamp":"')
  await untilKept(await idOf("running"), '"alias":"site"')
})

afterAll(async () => own[Symbol.asyncDispose]())

test("without its database the daemon refuses, changes nothing, and a running machine runs on; recover gives all back", async () => {
  const machines = own.machines()
  const before = readdirSync(path("sandboxes")).sort()
  await own.stopDaemon("SIGKILL")
  for (const name of files) rmSync(path(name), { force: true })
  rmSync(path("database-copies"), { recursive: true, force: true })
  await expect(own.startDaemon()).rejects.toThrow("bhatti admin recover")
  expect(own.machines()).toEqual(machines)
  expect(readdirSync(path("sandboxes")).sort()).toEqual(before)
  expect(existsSync(path("bhatti.db"))).toBe(false)

  const found = await recover()
  expect(found).toMatchObject({ database: "new", snapshots: [{ name: "kept" }] })
  expect(found.sandboxes.map(({ name, user }) => `${name} of ${user}`).sort()).toEqual([
    "running of tester",
    "stopped of tester",
  ])
  key = found.users.find(({ name }) => name === "tester")?.key ?? ""
  await own.startDaemon()
  expect(own.machines()).toEqual(machines)
  expect(await ok("exec", "running", "--", "cat", "/tmp/mark", "/dev/shm/mark")).toBe(
    "of the disk\nof memory\n",
  )
  expect(await ok("exec", "stopped", "--", "cat", "/dev/shm/mark")).toBe("of memory\n")
  expect(await ok("publish", "running", "--list")).toContain("site")
  await ok("snapshot", "resume", "kept", "--name", "again")
  expect(await ok("exec", "again", "--", "cat", "/dev/shm/mark")).toBe("of memory\n")
  await ok("destroy", "-y", "again")
})

test("an older database is refused, and recover takes nobody's sandbox for one of that time", async () => {
  await own.stopDaemon("SIGTERM")
  const older = new Map(
    files.filter((name) => existsSync(path(name))).map((name) => [name, readFileSync(path(name))]),
  )
  await own.startDaemon()
  await ok("create", "--name", "later")
  await ok("exec", "later", "--", "bash", "-c", "echo later > /tmp/mark")
  await untilKept(await idOf("later"), '"name":"later"')
  await until("the mark follows", async () => {
    const { counter } = JSON.parse(readFileSync(path("installation.json"), "utf8")) as { counter: number }
    const { Database } = await import("bun:sqlite")
    using database = new Database(path("bhatti.db"), { readonly: true })
    return (
      database.query<{ counter: number }, []>("select counter from installation").get()?.counter === counter
    )
  })
  const machines = own.machines()
  await own.stopDaemon("SIGKILL")
  for (const name of files) rmSync(path(name), { force: true })
  for (const [name, bytes] of older) writeFileSync(path(name), bytes)
  await expect(own.startDaemon()).rejects.toThrow("is older than its data directory")
  expect(own.machines()).toEqual(machines)

  expect((await recover()).database).toBe("in place")
  await own.startDaemon()
  expect(own.machines()).toEqual(machines)
  expect(await ok("exec", "later", "--", "cat", "/tmp/mark")).toBe("later\n")
  expect(await ok("exec", "running", "--", "cat", "/dev/shm/mark")).toBe("of memory\n")
  await ok("destroy", "-y", "later")
})

test("a directory that the database does not know is set aside, told by the doctor, and comes back with its row", async () => {
  await ok("create", "--name", "lost")
  await ok("exec", "lost", "--", "bash", "-c", "echo lost > /tmp/mark; sync")
  await ok("stop", "lost")
  const id = await idOf("lost")
  await untilKept(id, '"diskStamp":"')
  await own.stopDaemon("SIGTERM")
  const { Database } = await import("bun:sqlite")
  using database = new Database(path("bhatti.db"))
  database.run(`delete from sandboxes where id = '${id}'`)
  await own.startDaemon()
  expect((await list()).map(({ name }) => name)).not.toContain("lost")
  const { stdout } = await own.bhatti(["doctor", "--data-dir", own.dataDir])
  expect(stdout).toContain(`sandbox ${id}, the database does not know it`)
  await own.stopDaemon("SIGTERM")
  expect((await recover(id)).sandboxes.map(({ name }) => name)).toEqual(["lost"])
  await own.startDaemon()
  expect(await ok("exec", "lost", "--", "cat", "/tmp/mark")).toBe("lost\n")
  await ok("destroy", "-y", "lost")
})
