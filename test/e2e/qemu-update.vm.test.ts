/**
 * An update of the host's QEMU: saved memory is loaded by the QEMU that saved it, which is kept for that, unless the
 * operator forbids it or it is lost. New machines run the new one.
 */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { appendFileSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import type { Event } from "@bhatti/contract/event"
import type { Check } from "../../src/lib/preflight.ts"
import { type KeptQemu, listKept } from "../../src/machine/kept-qemu.ts"
import { qemuIdOf } from "../../src/machine/process.ts"
import { binary, type Installation, install, until } from "../support/installation.ts"
import { type OtherQemu, otherQemu } from "../support/other-qemu.ts"

const count = process.env["BHATTI_TEST_LONG"] === "1" ? 20 : 3

let own: Installation
let qemu: OtherQemu
beforeAll(async () => {
  qemu = otherQemu()
  own = await install({ launcher: qemu.launcher })
}, 600_000)
afterAll(async () => {
  await own[Symbol.asyncDispose]()
  qemu[Symbol.dispose]()
}, 120_000)

async function ok(...args: string[]): Promise<string> {
  const ran = await own.bhatti(args)
  expect([args[0], ran.exitCode, ran.exitCode === 0 ? "" : ran.stderr]).toEqual([args[0], 0, ""])
  return ran.stdout
}
const exec = (name: string, command: string) => ok("exec", name, "--", "sh", "-c", command)
const eventsOf = async (name: string) =>
  JSON.parse(await ok("events", "--sandbox", name, "--limit", "200", "--json")) as Event[]
/** The doctor's checks of QEMU, from a process that sees the same one as the daemon. */
const doctor = () => {
  const command = [...qemu.launcher, binary, "doctor", "--data-dir", own.dataDir, "--json"]
  const { stdout } = Bun.spawnSync(command, {
    env: { ...process.env, HOME: own.dataDir, BHATTI_URL: own.url },
  })
  return (JSON.parse(stdout.toString()) as Check[]).filter(({ area }) => area === "qemu")
}

/** A file in memory, and a process that goes on counting. */
const begin = (name: string) =>
  exec(
    name,
    `echo ${name} > /dev/shm/nonce; (while :; do date +%s%N > /dev/shm/tick; sleep 0.1; done) > /dev/null 2>&1 & echo $! > /dev/shm/pid`,
  )
const goesOn = "cat /dev/shm/nonce; kill -0 $(cat /dev/shm/pid) && echo runs"

async function lastWake(name: string): Promise<Event["meta"] | undefined> {
  const wakes = (await eventsOf(name)).filter(({ type }) => type === "thermal.wake")
  return wakes.toSorted((one, other) => one.ts.localeCompare(other.ts)).at(-1)?.meta
}

/** The kept build with this package's version. */
async function kept(packaged: string): Promise<KeptQemu> {
  const found = (await listKept(own.dataDir)).find(({ name }) => name.includes(`${packaged})`))
  if (!found) throw new Error(`no QEMU ${packaged} is kept`)
  return found
}

async function newDaemon(which: "installed" | "other"): Promise<void> {
  qemu.choose(which)
  await own.stopDaemon("SIGTERM")
  await own.startDaemon()
}

const stopped = Array.from({ length: count }, (_, index) => `w-${index + 1}`)

test("sandboxes and snapshots of the QEMU before an update continue with their memory, and new ones run the new QEMU", async () => {
  await ok("create", "--name", "w", "--count", String(count))
  await ok("create", "--name", "runs")
  for (const name of [...stopped, "runs"]) await begin(name)
  await ok("snapshot", "create", "w-1", "--name", "before")
  await ok("stop", ...stopped)
  const before = await kept(qemu.names.installed)

  await newDaemon("other")
  const after = await kept(qemu.names.other)
  expect(doctor()).toMatchObject([
    {
      status: "ok",
      text: expect.stringContaining(`1 running machine, ${count} stopped sandboxes, 1 named snapshot`),
    },
  ])
  for (const name of stopped) {
    expect(await exec(name, goesOn), name).toBe(`${name}\nruns\n`)
    expect(await lastWake(name), name).toMatchObject({ from: "cold", how: "memory", reason: null })
  }
  await ok("stop", "runs")
  expect(await exec("runs", goesOn)).toBe("runs\nruns\n")
  await ok("snapshot", "resume", "before", "--name", "resumed")
  expect(await exec("resumed", goesOn)).toBe("w-1\nruns\n")
  await ok("create", "--from", "w-1", "--name", "forked")
  expect(await exec("forked", goesOn)).toBe("w-1\nruns\n")
  await ok("create", "--name", "new")
  const running = own.machines().map((pid) => qemuIdOf(pid))
  expect(running.filter((id) => id === before.id)).toHaveLength(count + 3)
  expect(running.filter((id) => id === after.id)).toHaveLength(1)

  await ok("restart", "runs")
  expect(own.machines().filter((pid) => qemuIdOf(pid) === before.id)).toHaveLength(count + 2)
  await ok("destroy", "--yes", "resumed", "forked", "new", ...stopped.slice(2))
}, 600_000)

test("a forbidden QEMU loads no memory: the sandbox boots from its disk and is told why", async () => {
  const config = join(own.dataDir, "config.yaml")
  const allowed = readFileSync(config)
  await ok("stop", "w-1")
  appendFileSync(config, `\nforbidden_qemu: ["${qemu.names.installed}"]\n`)
  const named = {
    status: "warn",
    text: expect.stringMatching(/is forbidden, and needed by 1 running machine \(sb_\w+\)/),
  }
  expect(doctor()).toMatchObject([named])
  await newDaemon("other")
  expect(doctor()).toMatchObject([named])
  const reason = expect.stringMatching(/^its memory needs QEMU .*, which the operator forbids$/)
  expect(JSON.parse(await ok("start", "w-1", "--json"))).toMatchObject({ status_reason: reason })
  expect(await lastWake("w-1")).toMatchObject({ how: "disk", reason })
  expect(await ok("why", "w-1")).toContain("which the operator forbids")
  // It runs on until it is stopped.
  expect(await exec("w-2", goesOn)).toBe("w-2\nruns\n")
  const resumed = await ok("snapshot", "resume", "before", "--name", "resumed", "--json")
  expect(JSON.parse(resumed)).toMatchObject({ status_reason: reason })
  await ok("destroy", "--yes", "resumed")

  const installedToo = `forbidden_qemu: ["${qemu.names.other}"]\n`
  writeFileSync(config, Buffer.concat([allowed, Buffer.from(`\n${installedToo}`)]))
  await own.stopDaemon("SIGTERM")
  await expect(own.startDaemon()).rejects.toThrow("forbidden_qemu forbids it")
  writeFileSync(config, allowed)
  await own.startDaemon()
}, 300_000)

test("a kept QEMU that is lost or damaged costs the memory alone, and the sandbox is told why", async () => {
  const { root, id } = await kept(qemu.names.installed)
  await ok("stop", "w-2")
  await newDaemon("other")
  appendFileSync(join(root, "usr/share/seabios/bios-256k.bin"), "x")
  const damaged = await ok("snapshot", "resume", "before", "--name", "resumed", "--json")
  expect(JSON.parse(damaged)).toMatchObject({
    status_reason: expect.stringContaining("its kept copy is damaged: a file of it was changed"),
  })
  await ok("destroy", "--yes", "resumed")
  rmSync(join(own.dataDir, "qemu", id), { recursive: true })
  const reason = expect.stringMatching(/^its memory needs QEMU .*, which is not kept on this host$/)
  expect(JSON.parse(await ok("start", "w-2", "--json"))).toMatchObject({ status_reason: reason })
  await ok("file", "read", "w-2", "/etc/hostname")
}, 300_000)

test("a QEMU goes when nothing needs it any more, with what a crash has left of its removal", async () => {
  await newDaemon("installed")
  const other = await kept(qemu.names.other)
  await begin("w-2")
  await ok("stop", "w-2")
  const left = join(own.dataDir, "qemu", `part-${"0".repeat(16)}`)
  writeFileSync(left, "")
  await newDaemon("installed")
  expect(readdirSync(join(own.dataDir, "qemu"))).toContain(other.id)
  expect(await exec("w-2", goesOn)).toBe("w-2\nruns\n")
  await ok("destroy", "--yes", "w-1", "w-2", "runs")
  await newDaemon("installed")
  const { id } = await kept(qemu.names.installed)
  await until("it is removed", () => readdirSync(join(own.dataDir, "qemu")).join() === id)
  expect(doctor()).toEqual([])
}, 300_000)
