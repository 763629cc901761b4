/** The pool on real machines: quick, invisible, and nothing of one owner in what the next one gets. */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { type Installation, install, until } from "../support/installation.ts"

const size = 2
let own: Installation
beforeAll(async () => {
  own = await install({ pool: size, config: "forks: off\n" })
}, 600_000)
afterAll(async () => {
  await own[Symbol.asyncDispose]()
}, 60_000)

const full = (sandboxes: number) =>
  until("the pool is full", () => own.machines().length === size + sandboxes, { deadlineMs: 120_000 })
const probe = "cat /etc/machine-id; hostname; head -c 16 /dev/urandom | od -An -tx1; echo $WHO; date +%s"

test("sandboxes from the pool are their owners' alone: identity, randomness, environment, clock", async () => {
  await full(0)
  expect(JSON.parse((await own.bhatti(["list", "--json"])).stdout)).toEqual([])
  const seen: string[][] = []
  for (const name of ["first", "second", "third", "fourth"]) {
    await full(seen.length)
    expect((await own.bhatti(["create", "--name", name, "--env", `WHO=${name}`])).exitCode).toBe(0)
    const { stdout } = await own.bhatti(["exec", name, "--", "sh", "-c", probe])
    seen.push(stdout.trim().split("\n"))
  }
  for (const line of [0, 1, 2, 3]) expect(new Set(seen.map((one) => one[line])).size).toBe(4)
  expect(seen.map((one) => one[1])).toEqual(["first", "second", "third", "fourth"])
  expect(seen.map((one) => one[3])).toEqual(["first", "second", "third", "fourth"])
  for (const one of seen) expect(Math.abs(Number(one[4]) - Date.now() / 1000)).toBeLessThan(60)
  expect((await own.bhatti(["destroy", "first", "second", "third", "fourth"])).exitCode).toBe(0)
}, 300_000)

test("a create that is refused costs the pool nothing", async () => {
  await full(0)
  const key = await own.addUser("none", ["--max-sandboxes", "0"])
  expect((await own.bhatti(["create"], { key })).exitCode).toBe(1)
  expect(own.machines()).toHaveLength(size)
}, 120_000)

test("one from the pool can have an init script; one with a larger disk is made from the template", async () => {
  const from = async (name: string) => {
    const { stdout } = await own.bhatti(["events", "--sandbox", name, "--type", "sandbox.created", "--json"])
    return (JSON.parse(stdout) as { meta: { from: string } }[]).map(({ meta }) => meta.from)
  }
  await full(0)
  const args = ["--init", "echo ready > /workspace/ready"]
  expect((await own.bhatti(["create", "--name", "pooled", ...args])).exitCode).toBe(0)
  expect((await own.bhatti(["create", "--name", "large", "--disk", "16G", ...args])).exitCode).toBe(0)
  expect([await from("pooled"), await from("large")]).toEqual([["pool"], ["template"]])
  const disk = await own.bhatti(["exec", "large", "--", "sh", "-c", "df -BG --output=size / | tail -1"])
  expect(Number.parseInt(disk.stdout, 10)).toBeGreaterThan(14)
  for (const name of ["pooled", "large"]) {
    await until("the init script has run", async () => {
      return (await own.bhatti(["exec", name, "--", "cat", "/workspace/ready"])).stdout === "ready\n"
    })
    await own.bhatti(["destroy", name, "--yes"])
  }
}, 120_000)

test("a daemon that is killed leaves no pooled machine behind, and fills its pool again", async () => {
  await full(0)
  const before = own.machines()
  await own.stopDaemon("SIGKILL")
  await own.startDaemon()
  await until("the old ones are gone", () => own.machines().every((pid) => !before.includes(pid)))
  await full(0)
  expect(readdirSync(join(own.dataDir, "sandboxes"))).toHaveLength(size)
}, 180_000)

test("a daemon that stops takes its pool with it", async () => {
  await full(0)
  await own.stopDaemon("SIGTERM")
  expect(own.machines()).toEqual([])
  expect(readdirSync(join(own.dataDir, "sandboxes"))).toEqual([])
  await own.startDaemon()
}, 120_000)

test("creates that come at once make the pool larger, up to its bound", async () => {
  await using larger = await install({ pool: 3, config: "forks: off\n" })
  const ready = (count: number, sandboxes: number) =>
    until(`${count} wait`, () => larger.machines().length === count + sandboxes, { deadlineMs: 120_000 })
  await ready(2, 0)
  const names = ["a", "b", "c", "d"]
  const created = await Promise.all(names.map((name) => larger.bhatti(["create", "--name", name])))
  expect(created.map(({ exitCode }) => exitCode)).toEqual([0, 0, 0, 0])
  await ready(3, names.length)
  for (const name of names) {
    expect((await larger.bhatti(["exec", name, "--", "hostname"])).stdout).toBe(`${name}\n`)
  }
  const nicenessOf = (pid: number) => {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8")
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[16]
  }
  // While one is filled it gives way to all others.
  await until("all have the same priority", () => larger.machines().every((pid) => nicenessOf(pid) === "5"))
}, 300_000)
