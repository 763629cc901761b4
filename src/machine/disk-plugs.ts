/** Plugs disks into running machines and takes them out. The caller lets a machine do one of these at a time. */

import { closeSync } from "node:fs"
import { AppError } from "@bhatti/contract/errors"
import { z } from "zod"
import {
  blockNodes,
  deviceOf,
  type MachineDisk,
  openDisk,
  type PluggedDisk,
  partsOf,
  placeDisks,
  readPlugged,
  writePlugged,
} from "./plugged-disks.ts"
import { allowFileBytes, kitOf } from "./process.ts"
import type { Qmp } from "./qmp.ts"
import type { Machine } from "./starter.ts"

const deadline = { deadlineMs: 10_000 }
/** A guest releases a disk within half a second; a busy host's may take longer. */
const releaseDeadlineMs = 15_000
const pollMs = 10

type Target = Pick<Machine, "process" | "directory">

const Devices = z.array(z.object({ name: z.string() }))

/** The guest sees the disk a moment later, also one that is paused now, when it resumes. */
export async function plugDisk(target: Target, monitor: Qmp, wanted: MachineDisk): Promise<void> {
  const { process, directory } = target
  if (kitOf(process.pid) === undefined)
    throw new AppError("conflict", "the machine was started without a place for further disks", {
      hint: "restart the sandbox",
    })
  const others = await pluggedInto(target, monitor)
  const [disk] = placeDisks([wanted], others)
  if (!disk) return
  await using undo = new AsyncDisposableStack()
  const { set, device } = partsOf(disk)
  const { fd, bytes } = openDisk(disk)
  try {
    if (!disk.isReadOnly && !allowFileBytes(process.pid, bytes))
      throw new AppError("conflict", `the disk ${disk.id} is longer than this machine may make a file`, {
        hint: "restart the sandbox with it",
      })
    // A disk that QEMU may still have stays in the list: a memory saved now needs it.
    undo.defer(async () => {
      if (!(await devicesOf(monitor)).has(device)) await writePlugged(directory, others)
    })
    await writePlugged(directory, [...others, disk])
    // An interrupted attempt may have left parts at this port.
    await removeNodes(monitor, disk)
    await monitor.command("add-fd", { "fdset-id": set }, { ...deadline, descriptor: fd })
    undo.defer(() => unlessRefused(removeNodes(monitor, disk)))
    for (const node of blockNodes(disk)) await monitor.command("blockdev-add", node, deadline)
    undo.defer(() => unlessRefused(monitor.command("device_del", { id: device }, deadline)))
    await monitor.command("device_add", deviceOf(disk), deadline)
    undo.move()
  } finally {
    closeSync(fd)
  }
}

/** Waits until the guest has released the disk. Does nothing if the machine has no such disk. */
export async function unplugDisk(target: Target, monitor: Qmp, id: string): Promise<void> {
  const plugged = await readPlugged(target.directory)
  const disk = plugged.find((one) => one.id === id)
  if (!disk) return
  const { device } = partsOf(disk)
  const end = performance.now() + releaseDeadlineMs
  const isThere = async () => (await devicesOf(monitor)).has(device)
  if (await isThere()) {
    // QEMU refuses while the guest still owes the answer to an earlier request.
    await unlessRefused(monitor.command("device_del", { id: device }, deadline))
    while (await isThere()) {
      if (performance.now() > end)
        throw new AppError("conflict", `the guest does not release the disk ${id}`, {
          hint: "unmount it in the sandbox, then try again",
        })
      await Bun.sleep(pollMs)
    }
  }
  await removeNodes(monitor, disk)
  await writePlugged(
    target.directory,
    plugged.filter((one) => one.id !== id),
  )
}

/** The disks that QEMU has of those it was given. An interrupted attempt may have left one in the list alone. */
export async function pluggedInto(target: Target, monitor: Qmp): Promise<PluggedDisk[]> {
  const plugged = await readPlugged(target.directory)
  if (plugged.length === 0) return []
  const devices = await devicesOf(monitor)
  return plugged.filter((disk) => devices.has(partsOf(disk).device))
}

async function devicesOf(monitor: Qmp): Promise<Set<string>> {
  const listed = await monitor.command("qom-list", { path: "/machine/peripheral" }, deadline)
  const devices = Devices.safeParse(listed)
  if (!devices.success) throw new AppError("unavailable", "QEMU does not list its devices")
  return new Set(devices.data.map(({ name }) => name))
}

/** A node may be in use for a moment after its device has gone. Throws if QEMU keeps it, and with it the file. */
async function removeNodes(monitor: Qmp, disk: PluggedDisk): Promise<void> {
  const { disk: raw, file, set } = partsOf(disk)
  for (const node of [raw, file]) {
    const end = performance.now() + deadline.deadlineMs
    while (await hasNode(monitor, node)) {
      if (performance.now() > end)
        throw new AppError("unavailable", `QEMU does not release the disk ${disk.id}`)
      await unlessRefused(monitor.command("blockdev-del", { "node-name": node }, deadline))
      await Bun.sleep(pollMs)
    }
  }
  await unlessRefused(monitor.command("remove-fd", { "fdset-id": set }, deadline))
}

const Nodes = z.array(z.object({ "node-name": z.string().optional() }))

async function hasNode(monitor: Qmp, name: string): Promise<boolean> {
  const nodes = Nodes.safeParse(await monitor.command("query-named-block-nodes", { flat: true }, deadline))
  return nodes.success && nodes.data.some((node) => node["node-name"] === name)
}

async function unlessRefused(command: Promise<unknown>): Promise<void> {
  try {
    await command
  } catch (error) {
    if (!(error instanceof AppError)) throw error
  }
}
