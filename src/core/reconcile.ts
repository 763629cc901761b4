/** Start-up: reconciles the store with the host. This is the only clean-up after a crash. */

import { SandboxId } from "@bhatti/contract/ids"
import type { SandboxRecord } from "../store/sandboxes.ts"
import { resyncNetwork } from "./attachment.ts"
import type { Core, ForRequest, ForSettle, OnHost } from "./core.ts"
import { removeById, removeEverything } from "./destroy.ts"
import { reconcileImages } from "./image-disks.ts"
import { machineOf } from "./machine-of.ts"
import { settle } from "./settle.ts"
import { reconcileSnapshots } from "./snapshots.ts"

/**
 * The daemon may serve when this resolves. By then it holds the turns of sandboxes with a running machine, so that a
 * request waits only for its own sandbox; `settled` resolves when all of them are reconnected or given up.
 */
export async function reconcile(
  core: ForRequest & Pick<Core, "onUnpublished" | "pinnedDisks"> & OnHost<"keptRows" | "pulls" | "snapshots">,
): Promise<{ settled: Promise<void> }> {
  await core.host.templates.removeUnfinished()
  await reconcileImages(core)
  const records = await core.store.sandboxes.listOnHost()
  await resyncNetwork(core, records)
  const reconcileAll = async (some: SandboxRecord[]) => {
    await Promise.all(some.map((record) => core.turns.take(record.id, () => reconcileOne(core, record))))
  }
  const { running = [], ended = [] } = Object.groupBy(records, (record) =>
    hasMachine(core, record) ? "running" : "ended",
  )
  const settled = reconcileAll(running)
  await reconcileAll(ended)
  for (const id of await core.store.sandboxes.listPooledOnHost()) await removeById(core, id)
  await setUnknownAside(core)
  for (const id of await reconcileSnapshots(core)) await setAside(core, "snapshot", id)
  return { settled }
}

/** A sandbox without a machine is marked stopped before any request can see it. */
function hasMachine(core: OnHost<"machines">, record: SandboxRecord): boolean {
  const { machines } = core.host
  if (record.state.kind === "waking") return machines.find(record.id) !== undefined
  const machine = machineOf(record)
  return machine !== undefined && machines.isRunning(machine)
}

async function reconcileOne(
  core: ForSettle & Pick<Core, "onUnpublished" | "touches">,
  record: SandboxRecord,
): Promise<void> {
  const { state, isInBatch } = record
  try {
    if (isInBatch || state.kind === "creating" || state.kind === "destroying") {
      core.log.info({ sandbox: record.id, state: state.kind }, "removing the rest of a sandbox after a crash")
      await removeEverything(core, record)
    } else if (state.kind === "cold") {
      // No machine belongs to it; a machine left by a crash would write to its disk.
      await core.host.machines.kill({ id: record.id })
    } else {
      await settle(core, record.id)
    }
  } catch (error) {
    core.log.error({ sandbox: record.id, error }, "could not reconcile a sandbox")
  }
}

/**
 * The database can be wrong, so a directory without a row is never removed, and a machine running in one is left alone.
 */
async function setUnknownAside(
  core: Pick<Core, "events" | "log" | "store"> & OnHost<"disks" | "keptRows" | "machines">,
): Promise<void> {
  const { machines, disks } = core.host
  const known = new Set<string>((await core.store.sandboxes.listOnHost()).map(({ id }) => id))
  for (const id of await disks.listSandboxes()) {
    if (known.has(id)) continue
    const machine = SandboxId.safeParse(id).success ? machines.find(id) : undefined
    if (machine) {
      const { pid } = machine.process
      core.log.warn(
        { sandbox: id, pid },
        "a machine runs that the database does not know; it is left alone, and reaches no network",
      )
      core.events.record({ type: "unknown.running", meta: { by: "daemon", what: "sandbox", id, pid } })
      continue
    }
    await setAside(core, "sandbox", id)
  }
}

async function setAside(
  core: Pick<Core, "events" | "log"> & OnHost<"keptRows">,
  what: "sandbox" | "snapshot",
  id: string,
): Promise<void> {
  const path = await core.host.keptRows.setAside(what, id, "the database does not know it")
  core.log.warn({ [what]: id, path }, `a ${what}'s directory that the database does not know was set aside`)
  core.events.record({ type: "unknown.set_aside", meta: { by: "daemon", what, id, path } })
}
