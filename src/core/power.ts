/**
 * A sandbox's power: pausing it in memory, writing it to disk, waking it. Everything here needs the sandbox's turn. The
 * intent is in the store before the act, so that a start after a crash knows what was going on:
 *
 *   stopping: the machine still lives, paused; resume it, or finish if its snapshot is complete
 *   waking:   the machine may live already; its snapshot must not be used again once its disk may have changed
 */

import { AppError } from "../contract/errors.ts"
import type { SandboxRecord, SandboxState } from "../store/sandboxes.ts"
import { adoptGuest, dropGuest, keepGuest } from "./attach.ts"
import type { Core } from "./core.ts"
import type { Guest, Machine, Template } from "./host.ts"
import { newIdentity } from "./identity.ts"
import { machineOf, placeOf, rememberMachine, templateOf } from "./machine-of.ts"

const readyDeadlineMs = 30_000
/** A boot from disk takes 3 to 5 s on an idle host under software emulation. */
const bootDeadlineMs = 120_000
const quiesceDeadlineMs = 10_000
const refreshDeadlineMs = 10_000

/** hot → warm. False: it became busy meanwhile and stays hot. */
export async function pauseSandbox(core: Core, record: SandboxRecord): Promise<boolean> {
  const { state } = record
  const machine = machineOf(core, record)
  const guest = core.guests.get(record.id)
  if (state.kind !== "hot" || !machine || !guest) return false
  const before = guest.activity
  await core.store.sandboxes.setState(record.id, { ...state, kind: "warm" })
  await core.host.machines.pause(machine)
  const after = guest.activity
  if (after.openStreams === 0 && after.lastAtMs === before.lastAtMs) return true
  await core.host.machines.resume(machine)
  await core.store.sandboxes.setState(record.id, state)
  return false
}

/** hot or warm → cold. When it cannot be saved it goes on as it was, and the error says why. */
export async function stopSandbox(core: Core, record: SandboxRecord): Promise<SandboxState> {
  const { state } = record
  const machine = machineOf(core, record)
  if ((state.kind !== "hot" && state.kind !== "warm") || !machine) return state
  const template = await templateOf(core, record)
  const { machines } = core.host

  await silence(core, record, machine)
  await core.store.sandboxes.setState(record.id, { kind: "stopping", machine: state.machine })
  try {
    await machines.pause(machine)
    await machines.saveSnapshot(machine, template)
  } catch (cause) {
    await undoStop(core, record, machine)
    throw saveFailure(record, cause)
  }
  await machines.kill(machine)
  const cold: SandboxState = { kind: "cold", hasSnapshot: true, reason: null }
  await core.store.sandboxes.setState(record.id, cold)
  return cold
}

/** A stop that did not work, or was interrupted: the machine goes on. */
export async function undoStop(core: Core, record: SandboxRecord, machine: Machine): Promise<void> {
  const { machines } = core.host
  await machines.removeSnapshot(machine.directory)
  await machines.resume(machine)
  await core.store.sandboxes.setState(record.id, { kind: "hot", machine: rememberMachine(machine) })
  await adoptGuest(core, record)
}

/** Whatever state it is in: running when this answers. `reason` is set when it lost its memory and was booted. */
export async function wakeSandbox(core: Core, record: SandboxRecord): Promise<Guest> {
  const { state } = record
  switch (state.kind) {
    case "hot": {
      const guest = core.guests.get(record.id)
      if (guest) return guest
      break
    }
    case "warm":
      return resumeWarm(core, record)
    case "cold":
      return startCold(core, record, state)
    case "creating":
    case "stopping":
    case "waking":
    case "destroying":
      break
  }
  throw new AppError("unavailable", `sandbox "${record.name}" is ${state.kind}`, {
    hint: "try again in a moment",
  })
}

async function resumeWarm(core: Core, record: SandboxRecord): Promise<Guest> {
  const machine = machineOf(core, record)
  const guest = core.guests.get(record.id)
  if (record.state.kind !== "warm" || !machine || !guest) {
    throw new AppError("unavailable", `sandbox "${record.name}" has no machine`, {
      hint: "try again in a moment",
    })
  }
  // What is sent to a paused guest is the first that it reads.
  await Promise.all([core.host.machines.resume(machine), guest.refresh({ deadlineMs: refreshDeadlineMs })])
  await core.store.sandboxes.setState(record.id, { ...record.state, kind: "hot" })
  return guest
}

async function startCold(
  core: Core,
  record: SandboxRecord,
  state: Extract<SandboxState, { kind: "cold" }>,
): Promise<Guest> {
  const { machines, disks } = core.host
  const template = await templateOf(core, record)
  const directory = disks.directoryOf(record.id)
  const check = state.hasSnapshot ? await machines.checkSnapshot(directory, template) : undefined
  if (check?.fits) {
    const guest = await restore(core, record, template)
    if (guest) return guest
  } else if (check) {
    core.log.warn({ sandbox: record.id, reason: check.reason }, "booting from disk")
  }
  return boot(core, record, template)
}

/** Nothing: the snapshot turned out to be unusable before anything ran, and the sandbox can still boot. */
async function restore(core: Core, record: SandboxRecord, template: Template): Promise<Guest | undefined> {
  const { machines, disks } = core.host
  const directory = disks.directoryOf(record.id)
  await core.store.sandboxes.setState(record.id, { kind: "waking", fromSnapshot: true })
  await using undo = new AsyncDisposableStack()

  const sockets = await machines.prepareSockets(directory)
  const guest = await core.host.guests.open({ socketPath: machines.agentSocket(directory) })
  undo.defer(() => guest.close())

  let machine: Machine
  try {
    machine = await machines.restore(placeOf(core, record, template, sockets))
  } catch (cause) {
    core.log.error({ sandbox: record.id, cause }, "a memory snapshot could not be restored")
    if (cause instanceof AppError && !cause.retryable) return undefined
    // Nothing of the sandbox has run: the snapshot is as good as before, and the host may do better next time.
    await core.store.sandboxes.setState(record.id, { kind: "cold", hasSnapshot: true, reason: null })
    throw new AppError("unavailable", `sandbox "${record.name}" could not be started`, {
      cause,
      hint: "try again; the daemon's log says why",
    })
  }
  undo.defer(() => machines.kill(machine))
  undo.defer(() => coldWithoutMemory(core, record, "its last start from memory failed"))

  await guest.refresh({ deadlineMs: readyDeadlineMs })
  await finishStart(core, record, machine, guest)
  undo.move()
  return guest
}

async function boot(core: Core, record: SandboxRecord, template: Template): Promise<Guest> {
  const { machines, disks } = core.host
  const directory = disks.directoryOf(record.id)
  await core.store.sandboxes.setState(record.id, { kind: "waking", fromSnapshot: false })
  await using undo = new AsyncDisposableStack()
  undo.defer(() => coldWithoutMemory(core, record, "its last boot failed"))

  await machines.removeSnapshot(directory)
  const sockets = await machines.prepareSockets(directory)
  const guest = await core.host.guests.open({ socketPath: machines.agentSocket(directory) })
  undo.defer(() => guest.close())

  const machine = await machines.boot(
    placeOf(core, record, template, sockets),
    await core.host.images.readKernel(),
  )
  undo.defer(() => machines.kill(machine))

  try {
    await guest.waitReady({ deadlineMs: bootDeadlineMs })
    const env = {
      ...record.env,
      ...(await core.store.secrets.revealExisting(record.userId, record.secretNames)),
    }
    await guest.personalise(newIdentity(record, { env, growDisk: false }), { deadlineMs: readyDeadlineMs })
  } catch (cause) {
    core.log.error(
      { sandbox: record.id, cause, ...(await machines.diagnose(machine)) },
      "a sandbox did not boot",
    )
    throw new AppError("unavailable", `sandbox "${record.name}" does not boot from its disk`, {
      cause,
      hint: "the daemon's log has its last words",
    })
  }
  await finishStart(core, record, machine, guest)
  undo.move()
  return guest
}

async function finishStart(core: Core, record: SandboxRecord, machine: Machine, guest: Guest): Promise<void> {
  await core.store.sandboxes.setState(record.id, { kind: "hot", machine: rememberMachine(machine) })
  keepGuest(core, record, guest)
  // Its disk is changing now; together with that memory it would be a broken whole.
  await core.host.machines.removeSnapshot(machine.directory)
}

async function coldWithoutMemory(core: Core, record: SandboxRecord, reason: string): Promise<void> {
  await core.store.sandboxes.setState(record.id, { kind: "cold", hasSnapshot: false, reason })
}

/** The machine is gone: what is left is the disk. */
export async function markEnded(core: Core, record: SandboxRecord, reason: string): Promise<void> {
  dropGuest(core, record.id)
  await core.host.machines.removeSnapshot(core.host.disks.directoryOf(record.id))
  await coldWithoutMemory(core, record, reason)
}

/** Filesystems written out and nothing half said on the channel, if the guest is able to. */
async function silence(core: Core, record: SandboxRecord, machine: Machine): Promise<void> {
  const guest = core.guests.get(record.id)
  if (record.state.kind === "warm") await core.host.machines.resume(machine)
  try {
    await guest?.quiesce({ deadlineMs: quiesceDeadlineMs })
  } catch (error) {
    core.log.warn({ sandbox: record.id, error }, "saving a sandbox that could not fall silent")
  }
  dropGuest(core, record.id)
}

function saveFailure(record: SandboxRecord, cause: unknown): AppError {
  const isFull = (cause as NodeJS.ErrnoException).code === "ENOSPC"
  return new AppError("unavailable", `sandbox "${record.name}" could not be saved and goes on running`, {
    cause,
    hint: isFull
      ? "the host's disk is full; free some space and try again"
      : "the daemon's log says why; try again",
  })
}
