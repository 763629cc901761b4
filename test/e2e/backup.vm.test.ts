/** A backup of an installation that goes on, and what comes out of it. */

import { afterAll, beforeAll, expect, test } from "bun:test"
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs"
import { join } from "node:path"
import { type Installation, install, until } from "../support/installation.ts"
import { type OtherQemu, otherQemu } from "../support/other-qemu.ts"
import { nameOfMachine } from "../support/requests.ts"

let own: Installation
let qemu: OtherQemu
let outside = ""
const backup = () => join(outside, "backup")

async function ok(...args: string[]): Promise<string> {
  const { stdout, stderr, exitCode } = await own.bhatti(args)
  if (exitCode !== 0) throw new Error(`${args.join(" ")}: ${stdout}${stderr}`)
  return stdout
}

const admin = (verb: string, ...args: string[]) =>
  own.bhatti(["admin", verb, ...args, "--data-dir", own.dataDir])

/** The data directory that the daemon and its machines use is gone, as if the host were another one. */
async function loseAll(): Promise<void> {
  for (const { name } of JSON.parse(await ok("list", "--json")) as { name: string }[]) await ok("stop", name)
  await own.stopDaemon("SIGTERM")
  rmSync(own.dataDir, { recursive: true })
}

const markOf = (name: string) => ok("exec", name, "--", "cat", "mark", "/dev/shm/mark")
const setMark = (name: string, text: string) =>
  ok("exec", name, "--", "bash", "-c", `echo ${text} > mark; echo ${text} > /dev/shm/mark`)

beforeAll(async () => {
  qemu = otherQemu()
  own = await install({ launcher: qemu.launcher })
  outside = mkdtempSync("/tmp/bhatti-backup-")
  await ok("secret", "set", "TOKEN", "s3cret-value")
  await ok("create", "--name", "running", "--secret", "TOKEN")
  await setMark("running", "at-the-backup")
  await ok("publish", "running", "-p", "80", "-a", "site")
  await ok("create", "--name", "paused")
  await setMark("paused", "at-the-backup")
  await ok("snapshot", "create", "paused", "--name", "kept")
  await ok("stop", "paused")
  // On disk only.
  const others = own.machines()
  await ok("create", "--name", "killed")
  await ok("exec", "killed", "--", "bash", "-c", "echo at-the-backup > mark; sync")
  const [machine] = own.machines().filter((pid) => !others.includes(pid))
  process.kill(machine ?? 0, "SIGKILL")
  await until("it has ended", async () => (await ok("list")).match(/killed.*stopped/) !== null)
})

afterAll(async () => {
  await own[Symbol.asyncDispose]()
  qemu[Symbol.dispose]()
  rmSync(outside, { recursive: true, force: true })
})

test("a hot backup disturbs nothing, and is as closed as the data directory", async () => {
  const machines = own.machines()
  const { stdout, stderr, exitCode } = await admin("backup", backup(), "--json")
  expect([exitCode, stderr.includes("sandbox running")]).toEqual([0, true])
  expect(JSON.parse(stdout)).toMatchObject({ sandboxes: 3, snapshots: 1, failed: [] })
  expect(own.machines()).toEqual(machines)
  expect(statSync(backup()).mode & 0o777).toBe(0o700)
  for (const name of ["age.key", "bhatti.db", "backup.json"])
    expect([name, statSync(join(backup(), name)).mode & 0o777]).toEqual([name, 0o600])
  expect(readdirSync(join(own.dataDir, "snapshots")).filter((name) => name.startsWith("tmp-"))).toEqual([])
  await setMark("running", "after-the-backup")
  expect(await markOf("running")).toBe("after-the-backup\nafter-the-backup\n")
})

test("it lacks nothing of the data directory but what a daemon makes anew", () => {
  const remade = [
    "clients",
    "database-copies",
    "fork-trial.json",
    "jail",
    "kvm-probe.json",
    "lock",
    "zygotes",
  ]
  const names = readdirSync(own.dataDir).filter((name) => !/\.sock$|^bhatti\.db-/.test(name))
  expect(names.filter((name) => !remade.includes(name) && !existsSync(join(backup(), name)))).toEqual([])
})

test("one into the data directory, or over something else, is refused", async () => {
  expect((await admin("backup", join(own.dataDir, "backup"))).stderr).toContain("would be lost with it")
  expect((await admin("backup", backup())).stderr).toContain("is not empty")
  expect((await admin("restore", backup())).stderr).toContain("is not empty")
  expect((await admin("restore", outside)).stderr).toContain("no complete backup")
})

test("a backup that was damaged by one byte restores nothing", async () => {
  const elsewhere = join(outside, "elsewhere")
  const path = join(backup(), "age.key")
  const whole = readFileSync(path)
  writeFileSync(path, Buffer.concat([whole.subarray(0, -1), Buffer.from("x")]))
  const { stderr, exitCode } = await own.bhatti(["admin", "restore", backup(), "--data-dir", elsewhere])
  expect([exitCode, stderr]).toEqual([1, expect.stringContaining("age.key was changed")])
  expect(existsSync(elsewhere) ? readdirSync(elsewhere) : []).toEqual([])
  expect(readdirSync(outside).filter((name) => name.startsWith(".restoring"))).toEqual([])
  writeFileSync(path, whole)
})

test("restored on an empty data directory, all is as it was: memory, disks, snapshots, keys, secrets and aliases", async () => {
  await loseAll()
  // The other host has another QEMU.
  qemu.choose("other")
  const { stderr, exitCode } = await admin("restore", backup())
  expect([exitCode, stderr]).toEqual([0, ""])
  await own.startDaemon()
  expect(await markOf("running")).toBe("at-the-backup\nat-the-backup\n")
  expect(await markOf("paused")).toBe("at-the-backup\nat-the-backup\n")
  expect(await ok("exec", "killed", "--", "cat", "mark")).toBe("at-the-backup\n")
  expect(await ok("exec", "running", "--", "printenv", "TOKEN")).toBe("s3cret-value\n")
  expect(await ok("publish", "running", "--list")).toContain("site")
  await ok("snapshot", "resume", "kept", "--name", "again")
  expect(await markOf("again")).toBe("at-the-backup\nat-the-backup\n")
  await ok("destroy", "-y", "again")
})

test("without a daemon it is made all the same, of sandboxes that run on", async () => {
  await setMark("running", "without-a-daemon")
  await own.stopDaemon("SIGKILL")
  // A template in the making ends with its daemon.
  const machinesOfSandboxes = () => own.machines().filter((pid) => nameOfMachine(pid).startsWith("sb_"))
  const machines = machinesOfSandboxes()
  const second = join(outside, "second")
  const { stderr, exitCode } = await admin("backup", second)
  expect([exitCode, stderr.includes("sandbox running")]).toEqual([0, true])
  expect(machinesOfSandboxes()).toEqual(machines)
  await own.startDaemon()
  expect(machinesOfSandboxes()).toEqual(machines)
  await loseAll()
  // Where it is does not matter.
  renameSync(second, join(outside, "moved"))
  expect((await admin("restore", join(outside, "moved"))).exitCode).toBe(0)
  await own.startDaemon()
  expect(await markOf("running")).toBe("without-a-daemon\nwithout-a-daemon\n")
})
