/**
 * Bringing a sandbox out of a state that nobody is working on: a crash of the daemon, or a failure in the middle, has left it
 * between two states or without a channel. At start-up that is done for all, later by whoever takes its turn and finds it so.
 */

import { unreachable } from "../contract/errors.ts"
import type { SandboxRecord } from "../store/sandboxes.ts"
import { adopt, repair } from "./attach.ts"
import { beginAttach, finishAttach } from "./attachment.ts"
import type { Core } from "./core.ts"
import { machineOf, rememberMachine, templateOf } from "./machine-of.ts"
import { markEnded } from "./power.ts"

/** Needs the sandbox's turn. Gives the record as it is afterwards; nothing when there is none, or soon will be none. */
export async function settle(core: Core, id: SandboxRecord["id"]): Promise<SandboxRecord | undefined> {
  if (core.doomed.has(id)) return undefined
  const record = await core.store.sandboxes.get(id)
  if (!record || !(await settleRecord(core, record))) return record
  return core.store.sandboxes.get(id)
}

/** True: there was something to do. */
async function settleRecord(core: Core, record: SandboxRecord): Promise<boolean> {
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

/** The machine was paused and being saved: it goes on if it lives; else its snapshot counts, if it is whole. */
async function finishStopping(
  core: Core,
  record: SandboxRecord,
  { isWanted }: Extract<SandboxRecord["state"], { kind: "stopping" }>,
): Promise<void> {
  const { machines, disks } = core.host
  const machine = machineOf(core, record)
  if (machine && machines.isRunning(machine)) {
    // Before the machine runs: a snapshot that is older than its disk must not be found here another time.
    await machines.removeSnapshot(machine.directory)
    if (await adopt(core, record, machine)) return
    await machines.kill(machine)
    return markEnded(core, record, "its machine did not go on after a stop that failed")
  }
  const check = await machines.checkSnapshot(disks.directoryOf(record.id), await templateOf(core, record))
  if (!check.fits) return markEnded(core, record, "its machine ended while it was being saved")
  await core.store.sandboxes.setState(record.id, { kind: "cold", hasSnapshot: true, reason: null, isWanted })
}

/** The machine was being started: kept if it lives and answers. What it was to continue from counts while its disk is unchanged. */
async function finishWaking(
  core: Core,
  record: SandboxRecord,
  state: Extract<SandboxRecord["state"], { kind: "waking" }>,
): Promise<void> {
  const { machines, disks } = core.host
  const directory = disks.directoryOf(record.id)
  const machine = machines.findIn(directory)
  if (machine) {
    const hot: SandboxRecord = { ...record, state: { kind: "hot", machine: rememberMachine(machine) } }
    await finishAttach(core, hot, beginAttach(core, hot))
    if (await adopt(core, hot, machine)) return
    await machines.kill(machine)
  }
  const isUntouched = state.fromSnapshot && (await disks.stampOf(record.id)) === state.diskStamp
  const check = isUntouched
    ? await machines.checkSnapshot(directory, await templateOf(core, record))
    : undefined
  if (!check?.fits) return markEnded(core, record, "its start was interrupted")
  await core.store.sandboxes.setState(record.id, { kind: "cold", hasSnapshot: true, reason: null })
}
