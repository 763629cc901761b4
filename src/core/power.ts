/**
 * A sandbox's power: pausing it in memory, saving it to disk, waking it. Everything here needs the sandbox's turn. The
 * intent is stored before the act, so that a start after a crash knows what was in progress:
 * `stopping`: the machine still lives, paused; resume it, or finish if its snapshot is complete.
 * `waking`: the machine may live already; its snapshot must not be used again once its disk may have changed.
 */

import { AppError } from "@bhatti/contract/errors"
import { errorCodeOf } from "../lib/error-code.ts"
import { bootedMib, restoredMib } from "../rules/host-memory.ts"
import type { SandboxRecord, SandboxState } from "../store/sandboxes.ts"
import { adoptGuest, dropGuest, keepGuest } from "./attach.ts"
import { beginAttach, detach, finishAttach } from "./attachment.ts"
import { runBootScript } from "./boot-script.ts"
import type { Core } from "./core.ts"
import { coldWithoutMemory } from "./ended.ts"
import type { Guest, Kernel, Machine, Template } from "./host.ts"
import { environmentOf, personalise, refresh } from "./identity.ts"
import { machineOf, placeOf, rememberMachine, templateToStart } from "./machine-of.ts"
import { trimGuest } from "./trim.ts"

const readyDeadlineMs = 30_000
/** A boot from disk takes 3 to 5 s on an idle host under software emulation. */
const bootDeadlineMs = 120_000
/** Killing e2fsck while it writes would make the disk worse, and a large disk takes it long. */
const repairDeadlineMs = 3_600_000
const quiesceDeadlineMs = 10_000
const refreshDeadlineMs = 10_000
/** Requests wait this long meanwhile. */
const pauseTrimMs = 250

/** hot → warm. Returns false if the sandbox became busy meanwhile and stays hot. */
export async function pauseSandbox(core: Core, record: SandboxRecord): Promise<boolean> {
  const { state } = record
  const machine = machineOf(core, record)
  const guest = core.guests.get(record.id)
  if (state.kind !== "hot" || !machine || !guest) return false
  const before = guest.activity
  await trimGuest(core, record, guest, { budgetMs: pauseTrimMs })
  await core.store.sandboxes.setState(record.id, { ...state, kind: "warm" })
  await core.host.machines.pause(machine)
  const after = guest.activity
  if (after.openStreams === 0 && after.lastAtMs === before.lastAtMs) return true
  await core.host.machines.resume(machine)
  await core.store.sandboxes.setState(record.id, state)
  return false
}

/**
 * hot or warm → cold. If saving fails, the sandbox keeps its state and the error says why. `isWanted`: its owner
 * stopped it, so it is not restarted before somebody uses it.
 */
export async function stopSandbox(
  core: Core,
  seen: SandboxRecord,
  { isWanted = false }: { isWanted?: boolean } = {},
): Promise<SandboxState> {
  // The held machine's pending writes would be lost.
  const record = await core.space.checkInTurn(seen)
  const { state } = record
  const machine = machineOf(core, record)
  if ((state.kind !== "hot" && state.kind !== "warm") || !machine) return state
  const { machines } = core.host
  await core.store.sandboxes.setState(record.id, { kind: "stopping", machine: state.machine, isWanted })
  try {
    await silence(core, record, machine, { untouchedMib: await machines.untouchedMib(machine) })
    await machines.pause(machine)
    await machines.saveSnapshot(machine)
  } catch (cause) {
    const halted = await core.space.haltedFor(record, machine)
    if (halted) {
      core.log.warn({ sandbox: record.id, error: cause }, "saving a sandbox failed: it waits for disk space")
      throw halted
    }
    try {
      await undoStop(core, record, machine)
    } catch (error) {
      // The sandbox stays `stopping`; the next request settles it.
      core.log.error({ sandbox: record.id, error }, "a sandbox could not be saved and does not resume")
      throw new AppError("unavailable", `sandbox "${record.name}" could not be saved and does not answer`, {
        cause,
        hint: "the next request tries to bring it back; the daemon's log says why",
      })
    }
    throw saveFailure(record, cause)
  }
  await machines.kill(machine)
  await detach(core, record.id)
  const cold: SandboxState = { kind: "cold", hasSnapshot: true, reason: null, isWanted }
  await core.store.sandboxes.setState(record.id, cold)
  return cold
}

/** Resumes the machine after a stop that failed or was interrupted. */
export async function undoStop(core: Core, record: SandboxRecord, machine: Machine): Promise<void> {
  const { machines } = core.host
  await machines.removeSnapshot(machine.directory)
  await machines.resume(machine)
  await core.store.sandboxes.setState(record.id, { kind: "hot", machine: rememberMachine(machine) })
  await adoptGuest(core, record, machine)
}

/** Brings the sandbox to running from any state. `reason` is set if it lost its memory and was booted. */
export async function wakeSandbox(core: Core, record: SandboxRecord, what: string): Promise<Guest> {
  const { state } = record
  switch (state.kind) {
    case "hot": {
      const guest = core.guests.get(record.id)
      if (guest) return guest
      break
    }
    case "warm":
      return recordWake(core, record, { from: "warm", what }, async () => ({
        guest: await resumeWarm(core, record),
        how: "resumed",
        reason: null,
      }))
    case "cold":
      return recordWake(core, record, { from: "cold", what }, () => startCold(core, record, state))
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

type Woken = { guest: Guest; how: "resumed" | "memory" | "disk"; reason: string | null }

async function recordWake(
  core: Core,
  record: SandboxRecord,
  { from, what }: { from: "warm" | "cold"; what: string },
  wake: () => Promise<Woken>,
): Promise<Guest> {
  const startedAt = performance.now()
  const about = { userId: record.userId, sandbox: record }
  try {
    const { guest, how, reason } = await wake()
    const ms = Math.round(performance.now() - startedAt)
    core.events.record({ type: "thermal.wake", ...about, meta: { by: what, from, how, reason, ms } })
    core.failedStarts.forget(record.id)
    return guest
  } catch (error) {
    const failed = from === "cold" ? core.failedStarts.add(record.id, error) : undefined
    const meta = {
      by: what,
      from,
      ...(failed && { reason: failed.reason, failures: failed.inARow, rest_seconds: failed.restSec }),
    }
    core.events.record({ type: "sandbox.start_failed", ...about, meta })
    throw error
  }
}

async function resumeWarm(core: Core, record: SandboxRecord): Promise<Guest> {
  const machine = machineOf(core, record)
  const guest = core.guests.get(record.id)
  if (record.state.kind !== "warm" || !machine || !guest) {
    throw new AppError("unavailable", `sandbox "${record.name}" has no machine`, {
      hint: "try again in a moment",
    })
  }
  try {
    // A paused guest reads these messages first when it resumes.
    await Promise.all([core.host.machines.resume(machine), guest.refresh({ deadlineMs: refreshDeadlineMs })])
  } catch (error) {
    // Its state is unknown; without a channel, the next request repairs it.
    dropGuest(core, record.id)
    throw error
  }
  await core.store.sandboxes.setState(record.id, { ...record.state, kind: "hot" })
  return guest
}

async function startCold(
  core: Core,
  record: SandboxRecord,
  state: Extract<SandboxState, { kind: "cold" }>,
): Promise<Woken> {
  const { machines, disks } = core.host
  const template = await templateToStart(core, record)
  const directory = disks.directoryOf(record.id)
  const check = state.hasSnapshot ? await machines.checkSnapshot(directory, template) : undefined
  let reason = state.reason ?? "it had no saved memory"
  if (check?.fits) {
    using _memory = core.memory.promise(restoredMib(check.memoryMib))
    const restored = await restore(core, record, template)
    if ("guest" in restored) return { guest: restored.guest, how: "memory", reason: null }
    reason = restored.reason
  } else if (check) {
    reason = check.reason
    core.log.warn({ sandbox: record.id, reason }, "booting from disk")
  }
  return { guest: await bootFromDisk(core, record, template, reason), how: "disk", reason }
}

/**
 * Returns a reason if the snapshot cannot be used. No code of the sandbox has run yet, so the caller may boot from
 * disk.
 */
async function restore(
  core: Core,
  record: SandboxRecord,
  template: Template,
): Promise<{ guest: Guest } | { reason: string }> {
  const { machines, disks } = core.host
  const directory = disks.directoryOf(record.id)
  const diskStamp = await disks.stampOf(record.id)
  await core.store.sandboxes.setState(record.id, { kind: "waking", fromSnapshot: true, diskStamp })
  await using undo = new AsyncDisposableStack()

  const attaching = beginAttach(core, record)
  undo.defer(() => detach(core, record.id))

  let guest: Guest
  let machine: Machine
  try {
    const sockets = await machines.prepareSockets(directory)
    guest = await core.host.guests.open({ socketPath: machines.agentSocket(directory) })
    undo.defer(() => guest.close())
    machine = await machines.restore(placeOf(core, record, template, sockets))
  } catch (cause) {
    core.log.error({ sandbox: record.id, cause }, "a memory snapshot could not be restored")
    await machines.killIn(directory)
    if (cause instanceof AppError && !cause.retryable) return { reason: cause.message }
    // Nothing has run: the snapshot is still good, and a retry may succeed.
    await core.store.sandboxes.setState(record.id, { kind: "cold", hasSnapshot: true, reason: null })
    throw new AppError("unavailable", `sandbox "${record.name}" could not be started`, {
      cause,
      hint: "try again; the daemon's log says why",
    })
  }
  undo.defer(() => endStart(core, record, machine, "its last start from memory failed"))
  core.doomed.check(record)

  // A guest that was saved before it fell silent may be in the middle of a frame.
  await guest.waitReady({ deadlineMs: readyDeadlineMs, resync: true })
  await refresh(core, record, guest, { deadlineMs: refreshDeadlineMs })
  await finishAttach(core, record, attaching)
  await finishStart(core, record, machine, guest, null)
  undo.move()
  return { guest }
}

/** `reason` says why it does not start from memory; its owner sees it. */
export async function bootFromDisk(
  core: Core,
  record: SandboxRecord,
  template: Template,
  reason: string,
  repair?: Kernel & { arguments: string[] },
): Promise<Guest> {
  core.doomed.check(record)
  using _memory = core.memory.promise(bootedMib(record.memoryMib))
  const { machines, disks } = core.host
  const directory = disks.directoryOf(record.id)
  // Checked before anything changes: once the right file is put back, the saved memory is good again.
  const { missingMib } = await machines.checkDisk(directory)
  const told =
    missingMib > 0 ? `${reason}; ${missingMib} MB that its disk had are missing and read as zeros` : reason
  await core.store.sandboxes.setState(record.id, { kind: "waking", fromSnapshot: false })
  await using undo = new AsyncDisposableStack()
  let machine: Machine | undefined
  undo.defer(() => endStart(core, record, machine, "its last boot failed"))

  const attaching = beginAttach(core, record)
  undo.defer(() => detach(core, record.id))

  await machines.removeSnapshot(directory)
  const sockets = await machines.prepareSockets(directory)
  const guest = await core.host.guests.open({ socketPath: machines.agentSocket(directory) })
  undo.defer(() => guest.close())

  const kernel =
    repair ?? (await core.host.images.readKernelFor({ name: record.imageName, hash: record.imageHash }))
  machine = await machines.boot(placeOf(core, record, template, sockets), kernel)
  core.doomed.check(record)
  try {
    await guest.waitReady({ deadlineMs: repair ? repairDeadlineMs : bootDeadlineMs })
    const env = await environmentOf(core, record)
    await personalise(core, record, guest, { env, growDisk: false, deadlineMs: readyDeadlineMs })
  } catch (cause) {
    core.doomed.check(record)
    core.log.error(
      { sandbox: record.id, cause, ...(await machines.diagnose(machine)) },
      "a sandbox did not boot",
    )
    throw new AppError("unavailable", `sandbox "${record.name}" does not boot from its disk`, {
      cause,
      hint: "the daemon's log has the end of its console",
    })
  }
  await finishAttach(core, record, attaching)
  await finishStart(core, record, machine, guest, told)
  undo.move()
  await runBootScript(core, record, guest)
  return guest
}

async function finishStart(
  core: Core,
  record: SandboxRecord,
  machine: Machine,
  guest: Guest,
  bootReason: string | null,
): Promise<void> {
  if (bootReason !== record.bootReason) await core.store.sandboxes.setBootReason(record.id, bootReason)
  await core.store.sandboxes.setState(record.id, { kind: "hot", machine: rememberMachine(machine) })
  keepGuest(core, record, guest, machine)
  // The disk changes from now on and would no longer match that memory.
  await core.host.machines.removeSnapshot(machine.directory)
}

/** Marks the sandbox cold only when its machine is gone: a second machine on the same disk would destroy it. */
async function endStart(
  core: Core,
  record: SandboxRecord,
  machine: Machine | undefined,
  reason: string,
): Promise<void> {
  if (machine) await core.host.machines.kill(machine)
  core.log.warn({ sandbox: record.id, reason }, "a sandbox lost its memory; only its disk is left")
  await coldWithoutMemory(core, record, reason)
}

/** Syncs the filesystems and drains the channel, if the guest can. Throws if the guest waits for disk space. */
export async function silence(
  core: Core,
  record: SandboxRecord,
  machine: Machine,
  save: { untouchedMib?: number | undefined } = {},
): Promise<void> {
  const guest = core.guests.get(record.id)
  if (record.state.kind === "warm") await core.host.machines.resume(machine)
  try {
    if (guest) {
      const quiet = guest.quiesce({ ...save, deadlineMs: quiesceDeadlineMs })
      await core.space.unlessHalted(record, machine, quiet)
    }
  } catch (error) {
    if (core.space.heldOf(record) !== undefined) throw error
    core.log.warn({ sandbox: record.id, error }, "saving a sandbox that did not quiesce")
  } finally {
    dropGuest(core, record.id)
  }
}

function saveFailure(record: SandboxRecord, cause: unknown): AppError {
  return new AppError("unavailable", `sandbox "${record.name}" could not be saved and keeps running`, {
    cause,
    hint: saveHint(errorCodeOf(cause)),
  })
}

function saveHint(code: string | undefined): string {
  if (code === "EROFS") return "the host's file system is read-only; its kernel log says why"
  if (code === "ENOSPC") return "the host's disk is full; free some space and try again"
  return "the daemon's log says why; try again"
}
