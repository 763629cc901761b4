/**
 * A sandbox's power: pausing it in memory, saving it to disk, waking it. Everything here needs the sandbox's turn. The
 * intent is stored before the act, so that a start after a crash knows what was in progress. A machine that was
 * `stopping` still lives, paused: resume it, or finish if its snapshot is complete. A machine that was `waking` may
 * live already: its snapshot must not be used again once its disk may have changed.
 */

import { AppError } from "@bhatti/contract/errors"
import { errorCodeOf } from "../lib/error-code.ts"
import { bootedMib, restoredMib } from "../rules/host-memory.ts"
import type { SandboxRecord, SandboxState } from "../store/sandboxes.ts"
import { detach } from "./attachment.ts"
import { runBootScript } from "./boot-script.ts"
import type { Core, ForChannel, ForStart, ForWake, OnHost } from "./core.ts"
import type { Ending } from "./endings.ts"
import { adoptGuest, dropGuest } from "./guest-channel.ts"
import type { Guest, Kernel, Machine, Template } from "./host.ts"
import { environmentOf, personalise, refresh } from "./identity.ts"
import { startMainAtBoot } from "./image-program.ts"
import { startInitAtBoot } from "./init-system.ts"
import { machineOf, rememberMachine, templateToStart } from "./machine-of.ts"
import { coldWithoutMemory } from "./mark-ended.ts"
import { startServicesAtBoot } from "./services.ts"
import { readyDeadlineMs, startSandbox } from "./start.ts"
import { runStartCommand } from "./start-command.ts"
import { trimGuest } from "./trim.ts"

/** A boot from disk takes 3 to 5 s on an idle host under software emulation. */
const bootDeadlineMs = 120_000
/** Killing e2fsck while it writes would make the disk worse, and a large disk takes it long. */
const repairDeadlineMs = 3_600_000
const quiesceDeadlineMs = 10_000
const refreshDeadlineMs = 10_000
/** Requests wait this long meanwhile. */
const pauseTrimMs = 250

/** hot → warm. Returns false if the sandbox became busy meanwhile and stays hot. */
export async function pauseSandbox(
  core: Pick<Core, "guests" | "log" | "store"> & OnHost<"machines">,
  record: SandboxRecord,
): Promise<boolean> {
  const { state } = record
  const machine = machineOf(record)
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
  core: ForChannel & Pick<Core, "log" | "space">,
  seen: SandboxRecord,
  { isWanted = false, ending = { cause: "stopped" } }: { isWanted?: boolean; ending?: Ending } = {},
): Promise<SandboxState> {
  // The held machine's pending writes would be lost.
  const record = await core.space.checkInTurn(seen)
  const { state } = record
  const machine = machineOf(record)
  if ((state.kind !== "hot" && state.kind !== "warm") || !machine) return state
  const { machines } = core.host
  await core.store.sandboxes.setState(record.id, { kind: "stopping", machine: state.machine, isWanted })
  try {
    const save = { untouchedMib: await machines.untouchedMib(machine) }
    await silence(core, record, machine, { ending, ...save })
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
export async function undoStop(core: ForChannel, record: SandboxRecord, machine: Machine): Promise<void> {
  const { machines } = core.host
  await machines.removeSnapshot(record.id)
  await machines.resume(machine)
  await core.store.sandboxes.setState(record.id, { kind: "hot", machine: rememberMachine(machine) })
  await adoptGuest(core, record, machine)
}

/** Brings the sandbox to running from any state. `reason` is set if it lost its memory and was booted. */
export async function wakeSandbox(core: ForWake, record: SandboxRecord, what: string): Promise<Guest> {
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
  core: Pick<Core, "clock" | "events" | "failedStarts">,
  record: SandboxRecord,
  { from, what }: { from: "warm" | "cold"; what: string },
  wake: () => Promise<Woken>,
): Promise<Guest> {
  const startedAt = core.clock.nowMs()
  const about = { userId: record.userId, sandbox: record }
  try {
    const { guest, how, reason } = await wake()
    const ms = Math.round(core.clock.nowMs() - startedAt)
    core.events.record({ type: "thermal.wake", ...about, meta: { by: what, from, how, reason, ms } })
    core.failedStarts.forget(record.id)
    return guest
  } catch (error) {
    const failed = from === "cold" ? core.failedStarts.add(record.id, error) : undefined
    const told = wakeFailed(error)
    const meta = {
      by: what,
      from,
      cause: (told instanceof AppError ? told.reason : undefined) ?? "wake_failed",
      ...(failed && { reason: failed.reason, failures: failed.inARow, rest_seconds: failed.backOffSec }),
    }
    core.events.record({ type: "sandbox.start_failed", ...about, meta })
    throw told
  }
}

/** Refusals, and failures that name their reason, stay as they are. */
function wakeFailed(error: unknown): unknown {
  if (!(error instanceof AppError) || error.code !== "unavailable") return error
  const isUnnamed = error.reason === undefined || error.reason === "channel_lost"
  return isUnnamed ? error.but({ reason: "wake_failed" }) : error
}

async function resumeWarm(
  core: Pick<Core, "endings" | "guests" | "store"> & OnHost<"machines">,
  record: SandboxRecord,
): Promise<Guest> {
  const machine = machineOf(record)
  const guest = core.guests.get(record.id)
  if (record.state.kind !== "warm" || !machine || !guest) {
    throw new AppError("unavailable", `sandbox "${record.name}" has no machine`, {
      hint: "try again in a moment",
    })
  }
  try {
    // A paused guest reads these messages first when it resumes.
    await Promise.all([
      core.host.machines.resume(machine),
      guest.ask({ op: "refresh" }, { deadlineMs: refreshDeadlineMs }),
    ])
  } catch (error) {
    // Its state is unknown; without a channel, the next request repairs it.
    dropGuest(core, record.id, { cause: "channel_lost" })
    throw error
  }
  await core.store.sandboxes.setState(record.id, { ...record.state, kind: "hot" })
  return guest
}

async function startCold(
  core: ForStart & OnHost<"disks" | "templates">,
  record: SandboxRecord,
  { hasSnapshot, reason }: Extract<SandboxState, { kind: "cold" }>,
): Promise<Woken> {
  const template = await templateToStart(core, record)
  const saved = hasSnapshot || { reason: reason ?? "it had no saved memory" }
  return await startSaved(core, record, template, saved, () => restore(core, record, template))
}

/** Starts from saved memory if it fits, else from the disk, and says why. `saved` says why there is none. */
export async function startSaved(
  core: ForStart,
  record: SandboxRecord,
  template: Template,
  saved: true | { reason: string },
  fromMemory: () => Promise<{ guest: Guest } | { reason: string }>,
): Promise<Woken> {
  const { machines } = core.host
  let reason: string
  if (saved === true) {
    const check = await machines.checkSnapshot(record.id, template)
    if (check.fits) {
      using _memory = core.memory.promise(restoredMib(check.memoryMib))
      const restored = await fromMemory()
      if ("guest" in restored) return { guest: restored.guest, how: "memory", reason: null }
      reason = restored.reason
    } else reason = check.reason
    core.log.warn({ sandbox: record.id, reason }, "booting from disk")
  } else reason = saved.reason
  return { guest: await bootFromDisk(core, record, template, reason), how: "disk", reason }
}

/**
 * Returns a reason if the snapshot cannot be used. No code of the sandbox has run yet, so the caller may boot from
 * disk.
 */
async function restore(
  core: ForChannel & Pick<Core, "destroying" | "log"> & OnHost<"disks">,
  record: SandboxRecord,
  template: Template,
): Promise<{ guest: Guest } | { reason: string }> {
  const diskStamp = await core.host.disks.stampOf(record.id)
  await core.store.sandboxes.setState(record.id, { kind: "waking", fromSnapshot: true, diskStamp })
  let hasRun = true
  try {
    return await startSandbox(core, record, {
      from: { kind: "memory", template },
      giveIdentity: ({ guest }) => refresh(core, record, guest, { deadlineMs: refreshDeadlineMs }),
      async onFailure(ran) {
        hasRun = ran
        if (ran) await loseMemory(core, record, "its last start from memory failed")
      },
    })
  } catch (cause) {
    if (hasRun) throw cause
    core.log.error({ sandbox: record.id, cause }, "a memory snapshot could not be restored")
    if (cause instanceof AppError && !cause.retryable) return { reason: cause.message }
    // The snapshot is still good, and a retry may succeed.
    await core.store.sandboxes.setState(record.id, { kind: "cold", hasSnapshot: true, reason: null })
    throw new AppError("unavailable", `sandbox "${record.name}" could not be started`, {
      cause,
      hint: "try again; the daemon's log says why",
    })
  }
}

/** `reason` says why it does not start from memory; its owner sees it. */
export async function bootFromDisk(
  core: ForStart,
  record: SandboxRecord,
  template: Template,
  reason: string,
  repair?: Kernel,
): Promise<Guest> {
  core.destroying.check(record)
  using _memory = core.memory.promise(bootedMib(record.memoryMib))
  const { machines, images } = core.host
  // Checked before anything changes: once the right file is put back, the saved memory is good again.
  const { missingMib } = await machines.checkDisk(record.id)
  const kernel = repair ?? (await images.readKernel({ name: record.imageName, hash: record.imageHash }))
  await core.store.sandboxes.setState(record.id, { kind: "waking", fromSnapshot: false })
  const { guest } = await startSandbox(core, record, {
    from: { kind: "disk", template, kernel },
    async giveIdentity({ machine, guest: booted }) {
      try {
        await booted.waitReady({ deadlineMs: repair ? repairDeadlineMs : bootDeadlineMs })
        const env = await environmentOf(core, record)
        await personalise(core, record, booted, { env, growDisk: false, deadlineMs: readyDeadlineMs })
      } catch (cause) {
        core.destroying.check(record)
        const words = await machines.diagnose(machine)
        core.log.error({ sandbox: record.id, cause, ...words }, "a sandbox did not boot")
        throw new AppError("unavailable", `sandbox "${record.name}" does not boot from its disk`, {
          cause,
          hint: "the daemon's log has the end of its console",
        })
      }
    },
    prepareGuest: (booted) => startInitAtBoot(core, record, booted),
    bootReason:
      missingMib > 0 ? `${reason}; ${missingMib} MB that its disk had are missing and read as zeros` : reason,
    onFailure: () => loseMemory(core, record, "its last boot failed"),
  })
  await runStartCommand(core, record, guest)
  await startServicesAtBoot(core, record, guest)
  await startMainAtBoot(core, record, guest)
  await runBootScript(core, record, guest)
  return guest
}

async function loseMemory(
  core: Pick<Core, "log" | "store">,
  record: SandboxRecord,
  reason: string,
): Promise<void> {
  core.log.warn({ sandbox: record.id, reason }, "a sandbox lost its memory; only its disk is left")
  await coldWithoutMemory(core, record, reason)
}

/** Syncs the filesystems and drains the channel, if the guest can. Throws if the guest waits for disk space. */
export async function silence(
  core: Pick<Core, "endings" | "guests" | "log" | "space"> & OnHost<"machines">,
  record: SandboxRecord,
  machine: Machine,
  { ending, ...save }: { ending: Ending; untouchedMib?: number | undefined },
): Promise<void> {
  const guest = core.guests.get(record.id)
  if (record.state.kind === "warm") await core.host.machines.resume(machine)
  try {
    if (guest) {
      const quiet = guest.ask({ op: "quiesce", ...save }, { deadlineMs: quiesceDeadlineMs })
      await core.space.unlessHalted(record, machine, quiet)
    }
  } catch (error) {
    if (core.space.heldOf(record) !== undefined) throw error
    core.log.warn({ sandbox: record.id, error }, "saving a sandbox that did not quiesce")
  } finally {
    dropGuest(core, record.id, ending)
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
