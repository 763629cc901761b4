/** The operator's user commands, on a real database. */

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test"
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { apiKeyPattern } from "@bhatti/contract/limits"
import { openStore } from "../../src/store/store.ts"
import { anImage } from "../support/made-records.ts"
import { bhatti } from "./program.ts"

// Each step is a process that opens a database and syncs it to disk.
setDefaultTimeout(30_000)

let dataDir = ""
beforeAll(async () => {
  dataDir = mkdtempSync(join(tmpdir(), "bhatti-cli-user-"))
  await (await openStore({ dataDir })).close()
})
afterAll(() => rmSync(dataDir, { recursive: true }))

function user(...args: string[]) {
  return userIn(dataDir, ...args)
}

function userIn(directory: string, ...args: string[]) {
  return bhatti(["user", ...args, "--data-dir", directory])
}

function keyIn(stdout: string): string {
  return /^API key: (.*)$/m.exec(stdout)?.[1] ?? ""
}

test.concurrent("a user's life: created, listed, key rotated, deleted", async () => {
  const directory = join(dataDir, "alone")
  mkdirSync(directory)
  await (await openStore({ dataDir: directory })).close()
  const user = (...args: string[]) => userIn(directory, ...args)
  const created = await user(
    "create",
    "--name",
    "alice",
    "--max-sandboxes",
    "3",
    "--max-cpus",
    "2",
    "--max-memory",
    "2G",
  )
  expect(created.exitCode).toBe(0)
  expect(created.stdout).toStartWith("user/alice created\n")
  expect(keyIn(created.stdout)).toMatch(apiKeyPattern)

  const listed = await user("list")
  expect(listed.stdout).toMatch(/^NAME +SANDBOXES +MAX CPUS +MAX MEMORY .*\nalice +0\/3 +2 +2 GB /)
  const json = JSON.parse((await user("list", "--json")).stdout)
  expect(json).toMatchObject([
    { name: "alice", max_sandboxes: 3, max_cpus: 2, max_memory_mb: 2048, sandboxes: 0 },
  ])

  const quota = await user("edit", "alice", "--max-disk", "20G")
  expect(quota.stdout).toEndWith("each with up to 2 cpus and 2 GB, on 20 GB of disk together\n")
  expect((await user("list")).stdout).toMatch(/^NAME .* DISK .*\nalice .* 0 MB of 20 GB /)
  expect((await user("edit", "alice", "--max-disk", "0")).stdout).not.toContain("disk")

  const edited = await user("edit", "alice", "--max-sandboxes", "7", "--max-memory", "3G")
  expect(edited.stdout).toBe("user/alice may have 7 sandboxes, each with up to 2 cpus and 3 GB\n")
  const unchanged = await user("edit", "alice")
  expect(unchanged).toMatchObject({ exitCode: 2, stdout: "" })
  expect(unchanged.stderr).toContain("nothing to change")
  expect((await user("edit", "nobody", "--max-cpus", "1")).stderr).toStartWith(
    'bhatti: no user named "nobody"',
  )

  const rotated = await user("rotate-key", "alice")
  expect(keyIn(rotated.stdout)).toMatch(apiKeyPattern)
  expect(keyIn(rotated.stdout)).not.toBe(keyIn(created.stdout))

  const events = await bhatti(["admin", "events", "--type", "user.created", "--data-dir", directory])
  expect(events.stdout).toMatch(/ user\.created {2}by=operator {2}user=alice {2}user_id=usr_\w+\n$/)

  expect(await user("delete", "alice")).toEqual({ stdout: "user/alice deleted\n", stderr: "", exitCode: 0 })
  expect((await user("list")).stdout).toBe("")
})

test.concurrent("a name twice, a bad name and an unknown user are one-line errors", async () => {
  await user("create", "--name", "bob")
  const again = await user("create", "--name", "bob")
  expect(again).toMatchObject({ stdout: "", exitCode: 1 })
  expect(again.stderr).toStartWith('bhatti: a user named "bob" exists already\n')
  expect((await user("create", "--name", "no spaces")).exitCode).toBe(1)
  expect((await user("rotate-key", "nobody")).stderr).toStartWith('bhatti: no user named "nobody"\n')
  expect((await user("delete", "nobody")).exitCode).toBe(1)
})

test.concurrent("a directory without a database is an error, and gets none", async () => {
  const missing = join(dataDir, "mistyped")
  const other = join(dataDir, "other")
  mkdirSync(other)
  for (const place of [missing, other])
    for (const args of [["list"], ["create", "--name", "x"], ["delete", "x"]]) {
      const ran = await bhatti(["user", ...args, "--data-dir", place])
      expect(ran).toEqual({
        stdout: "",
        stderr: `bhatti: there is no bhatti database in ${place}\n  try: sudo bhatti init --data-dir ${place}\n`,
        exitCode: 1,
      })
    }
  expect(existsSync(missing)).toBe(false)
  expect(readdirSync(other)).toEqual([])
})

test.concurrent("an address that is none is wrong usage, before anything is made of it", async () => {
  const place = join(dataDir, "prepared")
  for (const command of ["init", "serve"])
    for (const listen of ["8080", "127.0.0.1:99999", "127.0.0.1:"]) {
      const ran = await bhatti([command, "--data-dir", place, "--listen", listen])
      expect(ran).toEqual({
        stdout: "",
        stderr: `bhatti: --listen takes HOST:PORT, not "${listen}"\n  try: bhatti ${command} --help\n`,
        exitCode: 2,
      })
    }
  expect(existsSync(place)).toBe(false)
})

test.concurrent("init where nothing can be made is an error of one line", async () => {
  const ran = await bhatti(["init", "--data-dir", "/dev/null/x"])
  expect(ran).toEqual({ stdout: "", stderr: "bhatti: cannot prepare /dev/null/x (ENOTDIR)\n", exitCode: 1 })
})

test.concurrent("--json shows user and key", async () => {
  const { stdout } = await user("create", "--name", "carol", "--json")
  const { user: created, key } = JSON.parse(stdout)
  expect(created.name).toBe("carol")
  expect(key).toMatch(apiKeyPattern)
})

test.concurrent("an image is shared with everybody or with named users, and the sharing ends", async () => {
  const directory = join(dataDir, "images")
  mkdirSync(directory)
  const store = await openStore({ dataDir: directory })
  const ids = []
  for (const name of ["alice", "bob"]) ids.push((await store.users.create({ name })).user.id)
  const [alice, bob] = ids
  if (!alice || !bob) throw new Error("no users")
  await store.images.put(alice, anImage("app"))
  await store.close()
  const image = (...args: string[]) => bhatti(["image", ...args, "--owner", "alice", "--data-dir", directory])
  const sees = async () => {
    const store = await openStore({ dataDir: directory })
    const { length } = await store.images.listUsable(bob)
    await store.close()
    return length
  }
  expect(await sees()).toBe(0)
  expect((await image("share", "app", "--user", "bob")).stdout).toBe("image/app of alice shared with bob\n")
  expect(await sees()).toBe(1)
  expect((await image("unshare", "app", "--user", "bob")).exitCode).toBe(0)
  expect(await sees()).toBe(0)
  expect((await image("share", "app")).stdout).toBe("image/app of alice shared with everybody\n")
  expect(await sees()).toBe(1)
  const unknown = await image("share", "nothing")
  expect(unknown).toMatchObject({ exitCode: 1, stderr: expect.stringContaining("alice has no image") })
  expect((await image("share", "app", "--user", "nobody")).stderr).toContain('no user named "nobody"')
})
