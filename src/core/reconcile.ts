/** Start-up: what the store says and what the host has are made one. Nothing else cleans up after a crash. */

import { unreachable } from "../contract/errors.ts"
import type { SandboxRecord } from "../store/sandboxes.ts"
import { repair } from "./attach.ts"
import { resyncNetwork } from "./attachment.ts"
import type { Core } from "./core.ts"
import { removeById, removeEverything } from "./destroy.ts"
import { machineOf, rememberMachine, templateOf } from "./machine-of.ts"
import { markEnded, undoStop } from "./power.ts"
import { reconcileSnapshots } from "./snapshots.ts"

export async function reconcile(core: Core): Promise<void> {
  core.host.machines.removeLeftovers()
  const records = await core.store.sandboxes.listAll()
  await resyncNetwork(core, records)
  await Promise.all(records.map((record) => core.turns.take(record.id, () => reconcileOne(core, record))))
  for (const id of await core.store.sandboxes.listPooled()) await removeById(core, id)
  await removeUnknown(core)
  await reconcileSnapshots(core)
}

async function reconcileOne(core: Core, record: SandboxRecord): Promise<void> {
  const { state } = record
  try {
    switch (state.kind) {
      case "hot":
      case "warm":
        return await repair(core, record, "the daemon was restarted")
      case "stopping":
        return await finishStopping(core, record)
      case "waking":
        return await finishWaking(core, record)
      case "creating":
      case "destroying":
        core.log.info({ sandbox: record.id, state: state.kind }, "removing what a crash left of a sandbox")
        return await removeEverything(core, record)
      case "cold":
        // No machine belongs to it; one that a crash left would write to its disk.
        return await core.host.machines.killNamed(record.id)
      default:
        return unreachable(state)
    }
  } catch (error) {
    core.log.error({ sandbox: record.id, error }, "could not reconcile a sandbox")
  }
}

/** The machine was paused and being saved: it goes on if it lives; else its snapshot counts, if it is whole. */
async function finishStopping(core: Core, record: SandboxRecord): Promise<void> {
  const { machines, disks } = core.host
  const machine = machineOf(core, record)
  if (machine && machines.isRunning(machine)) return undoStop(core, record, machine)
  const check = await machines.checkSnapshot(disks.directoryOf(record.id), await templateOf(core, record))
  if (!check.fits) return markEnded(core, record, "its machine ended while it was being saved")
  await core.store.sandboxes.setState(record.id, { kind: "cold", hasSnapshot: true, reason: null })
}

/** The machine was being started: kept if it lives and answers. Its snapshot may be older than its disk by now. */
async function finishWaking(core: Core, record: SandboxRecord): Promise<void> {
  const { machines, disks } = core.host
  const directory = disks.directoryOf(record.id)
  const machine = machines.findNamed(record.id, directory)
  if (!machine) return markEnded(core, record, "the daemon was killed while it was being started")
  const hot = { kind: "hot", machine: rememberMachine(machine) } as const
  await machines.removeSnapshot(directory)
  await core.store.sandboxes.setState(record.id, hot)
  await repair(core, { ...record, state: hot }, "the daemon was killed while it was being started")
}

/** Directories without a record, and templates that neither a sandbox nor the next create needs. */
async function removeUnknown(core: Core): Promise<void> {
  const records = await core.store.sandboxes.listAll()
  const ids = new Set<string>(records.map(({ id }) => id))
  for (const id of await core.host.disks.listSandboxes()) {
    if (!ids.has(id)) await core.host.disks.removeSandbox(id)
  }
}
