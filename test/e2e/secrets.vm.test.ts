/** Secrets on real machines: where they arrive, and everywhere they must not. */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { readdirSync, readFileSync, statSync } from "node:fs"
import { join } from "node:path"
import { type Installation, install } from "../support/installation.ts"

const value = `sk-${crypto.randomUUID()}`
let own: Installation
beforeAll(async () => {
  own = await install()
}, 600_000)
afterAll(async () => {
  await own[Symbol.asyncDispose]()
}, 60_000)

const exec = async (sandbox: string, script: string) =>
  (await own.bhatti(["exec", sandbox, "--", "sh", "-c", script])).stdout

test("the reference: set, list, delete", async () => {
  expect((await own.bhatti(["secret", "set", "API_KEY", value])).stdout).toBe("secret/API_KEY set\n")
  const listed = await own.bhatti(["secret", "list"])
  expect(listed.stdout).toMatch(/^NAME +SET\nAPI_KEY /)
  expect((await own.bhatti(["secret", "set", "OTHER"], { stdin: "from stdin\n" })).exitCode).toBe(0)
  expect((await own.bhatti(["secret", "delete", "OTHER"])).stdout).toBe("secret/OTHER deleted\n")
  expect((await own.bhatti(["secret", "delete", "OTHER"])).exitCode).toBe(1)
  for (const args of [
    ["secret", "list", "--json"],
    ["list", "--json"],
  ])
    expect((await own.bhatti(args)).stdout).not.toContain(value)
})

test("a sandbox gets what it was created with, and no other", async () => {
  expect((await own.bhatti(["create", "--name", "with", "--secret", "API_KEY"])).exitCode).toBe(0)
  expect((await own.bhatti(["create", "--name", "without"])).exitCode).toBe(0)
  expect(await exec("with", "echo $API_KEY")).toBe(`${value}\n`)
  expect(await exec("without", "echo $API_KEY")).toBe("\n")
  const missing = await own.bhatti(["create", "--secret", "NOPE"])
  expect(missing.exitCode).toBe(1)
  expect(missing.stderr).toContain("NOPE")
})

test("it is nowhere on the host in the clear: not in the database, logs, process arguments or other files", async () => {
  const files = readdirSync(own.dataDir, { recursive: true, withFileTypes: true })
    .filter((one) => one.isFile())
    .map((one) => join(one.parentPath, one.name))
    // A machine's disk and memory are the sandbox's own, which has the secret.
    .filter((path) => !path.includes("/sandboxes/") && statSync(path).size < 64 * 1024 * 1024)
  expect(files.some((path) => path.endsWith("bhatti.db"))).toBe(true)
  const holding = files.filter((path) => readFileSync(path).includes(value))
  expect(holding).toEqual([])
  expect(own.daemonLog()).not.toContain(value)
  for (const pid of own.machines()) expect(readFileSync(`/proc/${pid}/cmdline`, "utf8")).not.toContain(value)
  expect(readFileSync(join(own.dataDir, "age.key"), "utf8")).toStartWith("AGE-SECRET-KEY-")
  expect(statSync(join(own.dataDir, "age.key")).mode & 0o777).toBe(0o600)
  expect(await exec("with", "cat /proc/cmdline")).not.toContain(value)
})

test("another user has another, and sees neither name nor value", async () => {
  const key = await own.addUser("other")
  expect((await own.bhatti(["secret", "list", "--json"], { key })).stdout).toBe("[]\n")
  expect((await own.bhatti(["create", "--secret", "API_KEY"], { key })).exitCode).toBe(1)
  expect((await own.bhatti(["secret", "delete", "API_KEY"], { key })).exitCode).toBe(1)
  await own.bhatti(["secret", "set", "API_KEY", "theirs"], { key })
  expect((await own.bhatti(["create", "--name", "theirs", "--secret", "API_KEY"], { key })).exitCode).toBe(0)
  const seen = await own.bhatti(["exec", "theirs", "--", "sh", "-c", "echo $API_KEY"], { key })
  expect(seen.stdout).toBe("theirs\n")
  expect((await own.bhatti(["destroy", "-y", "theirs"], { key })).exitCode).toBe(0)
})

test("a changed secret reaches the next sandbox, and a restart of the daemon changes nothing", async () => {
  await own.bhatti(["secret", "set", "API_KEY", "second"])
  await own.stopDaemon("SIGTERM")
  await own.startDaemon()
  expect(await exec("with", "echo $API_KEY")).toBe(`${value}\n`)
  expect((await own.bhatti(["create", "--name", "later", "--secret", "API_KEY"])).exitCode).toBe(0)
  expect(await exec("later", "echo $API_KEY")).toBe("second\n")
})
