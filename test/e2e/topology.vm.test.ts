/** Devices of machines on real QEMU: states that were saved with another list of devices, and disks plugged later. */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { appendFileSync, renameSync, truncateSync, utimesSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { loadConfig } from "../../src/config.ts"
import type { Guest, Machine, Template } from "../../src/core/host.ts"
import { templateSpec } from "../../src/core/template.ts"
import { ensureTemplate } from "../../src/core/template-builds.ts"
import { type OpenedCore, openCore } from "../../src/daemon.ts"
import { type MachineDisk, writePlugged } from "../../src/machine/plugged-disks.ts"
import { type Installation, install, until } from "../support/installation.ts"

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

async function start(
  at: Place & { disks?: MachineDisk[] },
  kind: "template" | "memory" | "disk",
): Promise<Started> {
  const from = kind === "disk" ? { kind, kernel: await opened.core.host.images.readKernel() } : { kind }
  const started = await opened.core.host.machines.start(at, from)
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

describe("a further disk", () => {
  const rawDisk = (name: string, mib = 16): string => {
    const path = join(own.dataDir, `${name}.raw`)
    writeFileSync(path, "")
    truncateSync(path, mib * 1024 * 1024)
    return path
  }
  /** The name of the disk in the guest. */
  const seen = (guest: Guest, id: string) =>
    run(guest, `for d in /sys/block/vd?; do [ "$(cat $d/serial)" = ${id} ] && basename $d; done; true`)
  const appears = async (guest: Guest, id: string) => {
    await until(`the guest sees ${id}`, async () => (await seen(guest, id)) !== "", { deadlineMs: 10_000 })
    return seen(guest, id)
  }

  test("is there within seconds, keeps its files through stop and wake as its programs keep their memory, and goes", async () => {
    const { machines } = opened.core.host
    const at = await place()
    const disk = { id: "vol_1", path: rawDisk("vol_1"), isReadOnly: false }
    const first = await start(at, "template")
    await machines.plugDisk(first.machine, disk)
    const name = await appears(first.guest, "vol_1")
    await run(first.guest, `mke2fs -q /dev/${name}; mount /dev/${name} /mnt; echo synced > /mnt/one; sync`)
    // In the guest's cache only, and a program that holds the file open.
    await run(first.guest, "echo cached > /mnt/two; (exec 3< /mnt/one; exec sleep 1000) > /dev/null 2>&1 &")
    await expect(machines.plugDisk(first.machine, disk)).rejects.toThrow("has a disk vol_1 already")
    await stop(first)

    const { template } = at
    const without = await machines.checkSnapshot(at.id, template)
    expect(without).toEqual({
      fits: false,
      reason: "its memory was saved with the disk vol_1, which it has no more",
    })
    const other = { ...disk, id: "vol_2" }
    expect(await machines.checkSnapshot(at.id, template, [disk, other])).toMatchObject({ fits: false })
    const withDisk = { ...at, disks: [disk] }
    expect(await machines.checkSnapshot(at.id, template, [disk])).toMatchObject({ fits: true })
    await reopen()
    const woken = await start(withDisk, "memory")
    expect(await run(woken.guest, "cat /mnt/one /mnt/two; pgrep -c sleep")).toBe("synced\ncached\n1")
    await run(woken.guest, "pkill sleep; echo three > /mnt/three; sync; umount /mnt")
    await opened.core.host.machines.unplugDisk(woken.machine, "vol_1")
    await opened.core.host.machines.unplugDisk(woken.machine, "vol_1")
    expect(await seen(woken.guest, "vol_1")).toBe("")
    await stop(woken)
    expect(await opened.core.host.machines.checkSnapshot(at.id, template, [disk])).toMatchObject({
      fits: false,
    })

    // Written from the guest, read from the host.
    const dump = Bun.spawnSync(["debugfs", "-R", "cat /three", disk.path])
    expect(dump.stdout.toString()).toBe("three\n")
  }, 300_000)

  test("comes with a start from the template and from the disk; a read-only one cannot be written", async () => {
    const at = await place()
    const disks = [
      { id: "data", path: rawDisk("data"), isReadOnly: false },
      { id: "fixed", path: rawDisk("fixed"), isReadOnly: true },
    ]
    const write = (guest: Guest, name: string) =>
      run(guest, `dd if=/dev/zero of=/dev/${name} bs=512 count=1 oflag=direct 2> /dev/null && echo written`)
    for (const kind of ["template", "disk"] as const) {
      const started = await start({ ...at, disks }, kind)
      expect(await write(started.guest, await appears(started.guest, "data"))).toBe("written")
      expect(await write(started.guest, await appears(started.guest, "fixed"))).toBe("")
      await opened.core.host.machines.kill(started.machine)
      started.guest.close()
    }
  }, 300_000)

  test("that changed while its machine was stopped costs the memory, which would not fit", async () => {
    const { machines } = opened.core.host
    const at = await place()
    const disk = { id: "vol", path: rawDisk("vol"), isReadOnly: false }
    const started = await start({ ...at, disks: [disk] }, "template")
    await stop(started)
    expect(await machines.checkSnapshot(at.id, at.template, [disk])).toMatchObject({ fits: true })
    utimesSync(disk.path, 1, 1)
    const changed = await machines.checkSnapshot(at.id, at.template, [disk])
    expect(changed).toEqual({ fits: false, reason: "its disk vol has changed since its memory was saved" })
    appendFileSync(disk.path, "x")
    await expect(start({ ...at, disks: [disk] }, "disk")).rejects.toThrow("no file of whole sectors")
  }, 300_000)

  test("is refused by a machine without a place for it and after eight others, but not because of an interrupted attempt", async () => {
    const { machines } = opened.core.host
    const former = places[0]
    if (!former) throw new Error("the first test has made it")
    const old = await start(former, "memory")
    const disk = { id: "vol", path: rawDisk("late"), isReadOnly: false }
    await expect(machines.plugDisk(old.machine, disk)).rejects.toThrow("without a place for further disks")
    await machines.kill(old.machine)
    old.guest.close()

    const at = await place()
    const started = await start(at, "template")
    // As a daemon leaves it that is killed before QEMU has the disk.
    await writePlugged(join(own.dataDir, "sandboxes", at.id), [{ ...disk, port: 0 }])
    for (let n = 0; n < 8; n++) await machines.plugDisk(started.machine, { ...disk, id: `vol_${n}` })
    await expect(machines.plugDisk(started.machine, disk)).rejects.toThrow("at most 8 further disks")
    await appears(started.guest, "vol_7")
    await expect(machines.plugDisk(started.machine, { ...disk, id: "bhatti-kit" })).rejects.toThrow("id")
    await machines.kill(started.machine)
    started.guest.close()
  }, 300_000)
})
