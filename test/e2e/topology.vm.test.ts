/** Devices of machines on real QEMU: states that were saved with another list of devices. */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { renameSync } from "node:fs"
import { join } from "node:path"
import { loadConfig } from "../../src/config.ts"
import type { Guest, Machine, Template } from "../../src/core/host.ts"
import { ensureTemplate, templateSpec } from "../../src/core/template.ts"
import { type OpenedCore, openCore } from "../../src/daemon.ts"
import { type Installation, install } from "../support/installation.ts"

const quiet = { info: () => undefined, warn: () => undefined, error: () => undefined }
const deadlineMs = 30_000

type Started = { machine: Machine; guest: Guest }

/** An installation without its daemon: the test stands in the daemon's place. */
let own: Installation
let opened: OpenedCore
beforeAll(async () => {
  own = await install()
  await own.stopDaemon("SIGTERM")
  await open()
}, 600_000)
afterAll(async () => {
  for (const { id } of places) {
    await opened.core.host.machines.kill({ id })
    await opened.core.host.disks.removeSandbox(id)
  }
  await opened.network?.close()
  await opened[Symbol.asyncDispose]()
  await own[Symbol.asyncDispose]()
}, 60_000)

async function open(): Promise<void> {
  opened = await openCore(loadConfig({ dataDir: own.dataDir }, {}), quiet)
  await opened.network?.resync([])
}

async function reopen(): Promise<void> {
  await opened.network?.close()
  await opened[Symbol.asyncDispose]()
  await open()
}

const places: { id: string; slot: number; diskMib: number; template: Template }[] = []
async function place() {
  const slot = places.length + 1
  const template = await ensureTemplate(opened.core, await templateSpec(opened.core))
  const made = { id: `sb_${slot.toString(16).padStart(8, "0")}0000`, slot, diskMib: 8192, template }
  places.push(made)
  await opened.core.host.disks.createSandbox({ id: made.id, template })
  return made
}

type Place = Awaited<ReturnType<typeof place>>

async function start(at: Place, kind: "template" | "memory"): Promise<Started> {
  const started = await opened.core.host.machines.start(at, { kind })
  await started.guest.waitReady({ deadlineMs, resync: kind === "memory" })
  const identity = { hostname: "x", machineId: "1".repeat(32), env: {}, network: null, growDisk: false }
  await started.guest.ask({ op: "personalise", identity }, { deadlineMs })
  return started
}

async function stop({ machine, guest }: Started): Promise<void> {
  await guest.ask({ op: "quiesce" }, { deadlineMs })
  await opened.core.host.machines.pause(machine)
  await opened.core.host.machines.saveSnapshot(machine)
  await opened.core.host.machines.kill(machine)
  guest.close()
}

async function run(guest: Guest, script: string): Promise<string> {
  const process = guest.processes.start({ onDisconnect: "kill", argv: ["sh", "-c", script], user: "root" })
  let text = ""
  for await (const { bytes } of process.output) text += Buffer.from(bytes).toString()
  await process.result
  return text.trim()
}

const kitOf = (guest: Guest) => run(guest, "ls /run/bhatti/kit 2>/dev/null | tr '\\n' ' '")

test("a machine that was saved before there were kits wakes with its memory, and new machines have the kit", async () => {
  const kits = join(own.dataDir, "kits")
  const aside = join(own.dataDir, "kits-aside")
  renameSync(kits, aside)
  await reopen()
  const former = await place()
  const first = await start(former, "template")
  expect(await kitOf(first.guest)).toBe("")
  await run(first.guest, "echo kept > /dev/shm/left")
  await stop(first)
  renameSync(aside, kits)
  await reopen()

  const at = await place()
  expect(at.template.id).not.toBe(former.template.id)
  const { machines } = opened.core.host
  expect(await machines.checkSnapshot(former.id, former.template)).toMatchObject({ fits: true })
  const woken = await start(former, "memory")
  expect(await run(woken.guest, "cat /dev/shm/left")).toBe("kept")
  await stop(woken)
  expect(await machines.checkSnapshot(former.id, former.template)).toMatchObject({ fits: true })

  const present = await start(at, "template")
  expect(await kitOf(present.guest)).toContain("sbin")
  await stop(present)
  renameSync(kits, aside)
  expect(await machines.checkSnapshot(at.id, at.template)).toEqual({
    fits: false,
    reason: expect.stringMatching(
      /^the disk kits\/[0-9a-f]{16}\.raw, which its memory was saved with, is missing$/,
    ),
  })
  renameSync(aside, kits)
  expect(await machines.checkSnapshot(at.id, at.template)).toMatchObject({ fits: true })
}, 300_000)
