/**
 * Settles a sandbox that a crash of the daemon or a failure has left between two states or without a channel. Start-up
 * settles all sandboxes; later, each operation settles its own when it takes the turn.
 */

import { unreachable } from "@bhatti/contract/errors"
import type { SandboxRecord } from "../store/sandboxes.ts"
import { beginAttach, finishAttach } from "./attachment.ts"
import type { Core, ForChannel, ForSettle, OnHost } from "./core.ts"
import { machineOf, rememberMachine, templateOf } from "./machine-of.ts"
import { markEnded } from "./mark-ended.ts"
import { adopt, repair } from "./reconnect.ts"

/** Needs the sandbox's turn. Returns the settled record, or undefined if there is none or it is being destroyed. */
export async function settle(core: ForSettle, id: SandboxRecord["id"]): Promise<SandboxRecord | undefined> {
  if (core.destroying.has(id)) return undefined
  const record = await core.store.sandboxes.get(id)
  if (!record || !(await settleRecord(core, record))) return record
  return core.store.sandboxes.get(id)
}

/** Returns true if anything had to be repaired. */
async function settleRecord(core: ForSettle, record: SandboxRecord): Promise<boolean> {
  const { state } = record
  switch (state.kind) {
    case "hot":
    case "warm":
      if (core.guests.has(record.id)) return false
      await repair(core, record, "it has no channel")
      return true
    case "stopping":
      await finishStopping(core, record, state)
      return true
    case "waking":
      await finishWaking(core, record, state)
      return true
    case "creating":
    case "cold":
    case "destroying":
      return false
    default:
      return unreachable(state)
  }
}

/** The machine was paused to be saved: resumes it if it lives; otherwise its snapshot counts, if complete. */
async function finishStopping(
  core: ForChannel & Pick<Core, "log" | "space"> & OnHost<"templates">,
  record: SandboxRecord,
  { isWanted }: Extract<SandboxRecord["state"], { kind: "stopping" }>,
): Promise<void> {
  const { machines } = core.host
  const machine = machineOf(record)
  if (machine && machines.isRunning(machine)) {
    // Before the machine runs: a snapshot older than its disk must never be found here later.
    await machines.removeSnapshot(record.id)
    if (await adopt(core, record, machine)) return
    await machines.kill(machine)
    return markEnded(core, record, {
      cause: "machine_lost",
      reason: "its machine did not resume after a stop that failed",
    })
  }
  const check = await machines.checkSnapshot(record.id, await templateOf(core, record))
  if (!check.fits)
    return markEnded(core, record, {
      cause: "machine_lost",
      reason: "its machine ended while it was being saved",
    })
  await core.store.sandboxes.setState(record.id, { kind: "cold", hasSnapshot: true, reason: null, isWanted })
}

/**
 * The machine was being started: keeps it if it answers. Otherwise the saved memory still counts while the disk is
 * unchanged.
 */
async function finishWaking(
  core: ForChannel & Pick<Core, "log" | "space"> & OnHost<"disks" | "templates">,
  record: SandboxRecord,
  state: Extract<SandboxRecord["state"], { kind: "waking" }>,
): Promise<void> {
  const { machines, disks } = core.host
  const machine = machines.find(record.id)
  if (machine) {
    const hot: SandboxRecord = { ...record, state: { kind: "hot", machine: rememberMachine(machine) } }
    await finishAttach(core, hot, beginAttach(core, hot))
    if (await adopt(core, hot, machine)) return
    await machines.kill(machine)
  }
  const isUntouched = state.fromSnapshot && (await disks.stampOf(record.id)) === state.diskStamp
  const check = isUntouched
    ? await machines.checkSnapshot(record.id, await templateOf(core, record))
    : undefined
  if (!check?.fits)
    return markEnded(core, record, { cause: "machine_lost", reason: "its start was interrupted" })
  await core.store.sandboxes.setState(record.id, { kind: "cold", hasSnapshot: true, reason: null })
}
