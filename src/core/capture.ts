/**
 * Copies a sandbox and starts a new one from the copy. The copy holds memory, devices and disk of the same moment; the
 * source is paused only while they are read. Named snapshots and forks are built from these two.
 */

import { AppError, isGuestReason } from "@bhatti/contract/errors"
import { errorCodeOf } from "../lib/error-code.ts"
import type { SandboxRecord } from "../store/sandboxes.ts"
import { awake, awakeInTurn } from "./awake.ts"
import type { Core, ForRequest, ForStart, OnHost } from "./core.ts"
import { noSandbox } from "./find.ts"
import { dropGuest } from "./guest-channel.ts"
import type { Guest, Machine, Started, Template } from "./host.ts"
import { personalise } from "./identity.ts"
import { machineOf, templateOf } from "./machine-of.ts"
import { startSaved } from "./power.ts"
import { runInGuest } from "./run-in-guest.ts"
import { settle } from "./settle.ts"
import { readyDeadlineMs, startSandbox } from "./start.ts"
import { startClone } from "./start-command.ts"
import { trimGuest } from "./trim.ts"

type Parts = Pick<Core, "clock" | "endings" | "guests" | "space"> & OnHost<"machines" | "snapshots">

/** Data not synced by then is still in the memory copy; only a copy without memory would miss it. */
const syncDeadlineMs = 5000
/** An image has nothing but the disk. */
const imageSyncDeadlineMs = 120_000
const kitSync = "/run/bhatti/kit/applets/sync"
/** Deleted data that the guest has not trimmed by then is copied. */
const copyTrimMs = 2000

export type Captured = { hasMemory: boolean; pausedMs: number }

/** Refuses a source that has no disk yet. */
export function checkCopyable(source: SandboxRecord): void {
  if (source.templateId !== null) return
  throw new AppError("unavailable", `sandbox "${source.name}" is ${source.state.kind}`, {
    hint: "try again in a moment",
  })
}

type Draft = { id: string; signal: AbortSignal }

/**
 * Fills the given draft, which the caller commits or abandons. Takes the source's turn; the signal aborts the copy.
 */
export async function captureSandbox(
  core: ForRequest & OnHost<"snapshots">,
  source: SandboxRecord,
  draftId: string,
  { signal }: { signal: AbortSignal },
): Promise<Captured> {
  const draft: Draft = { id: draftId, signal }
  await core.host.snapshots.begin(draftId)
  await copyAhead(core, source, draft)
  const capture = async () => {
    const settled = await settle(core, source.id)
    if (!settled) throw noSandbox(source.name)
    // A held sandbox stands still already, and would resume after the copy.
    const now = await core.space.checkInTurn(settled)
    if (now.state.kind === "cold") return captureStopped(core, now, draft)
    const machine = machineOf(now)
    if ((now.state.kind === "hot" || now.state.kind === "warm") && machine) {
      return captureRunning(core, now, machine, draft)
    }
    throw new AppError("unavailable", `sandbox "${now.name}" is ${now.state.kind}`, {
      hint: "try again in a moment",
    })
  }
  return core.turns.take(source.id, capture, { signal })
}

/**
 * Fills the given draft with the disk alone, with everything that the guest has written. The source runs on; one that
 * is stopped with a memory is woken, since that memory holds data that is on no disk yet.
 */
export async function captureDisk(
  core: ForRequest & OnHost<"snapshots">,
  source: SandboxRecord,
  draftId: string,
  { signal }: { signal: AbortSignal },
): Promise<void> {
  const { machines, snapshots } = core.host
  const what = "an image of it"
  const disk = { id: draftId, sandboxId: source.id, storedMemory: false, signal }
  await snapshots.begin(draftId)
  const before = await core.store.sandboxes.get(source.id)
  if (before?.state.kind === "cold" && before.state.hasSnapshot) await awake(core, before, what)
  await copyAhead(core, source, { id: draftId, signal })
  const capture = async () => {
    const settled = await settle(core, source.id)
    if (!settled) throw noSandbox(source.name)
    if (settled.state.kind === "cold" && !settled.state.hasSnapshot) return snapshots.capture(disk)
    await syncFiles(await awakeInTurn(core, settled, what), signal)
    const now = await core.store.sandboxes.get(source.id)
    const machine = now && machineOf(now)
    if (!machine) throw new AppError("unavailable", `sandbox "${source.name}" has just ended`)
    await machines.pause(machine)
    try {
      await snapshots.capture(disk)
    } finally {
      await goOn(core, source, machine)
    }
    await core.guests.get(source.id)?.ask({ op: "refresh" }, { deadlineMs: readyDeadlineMs })
  }
  await core.turns.take(source.id, capture, { signal })
}

/**
 * Copies the source's disk ahead, without its turn, while the guest goes on writing; the copy during the pause picks up
 * later writes. The guest first trims deleted data, which would be copied otherwise. The second pass follows the
 * guest's sync, so that little is left for the pause.
 */
async function copyAhead(
  core: ForRequest & OnHost<"snapshots">,
  source: SandboxRecord,
  { id, signal }: Draft,
): Promise<void> {
  const copy = () => core.host.snapshots.copyAhead({ id, sandboxId: source.id, signal })
  const now = await core.store.sandboxes.get(source.id)
  if (!now || !["hot", "warm", "cold"].includes(now.state.kind)) return
  if (now.state.kind === "hot") {
    const guest = await awake(core, now, "a copy of it")
    const machine = machineOf(now)
    const untouchedMib = machine && (await core.host.machines.untouchedMib(machine))
    await trimGuest(core, now, guest, { budgetMs: copyTrimMs, untouchedMib })
  }
  await copy()
  const then = await core.store.sandboxes.get(source.id)
  if (then?.state.kind !== "hot") return
  await writeOut(core, await awake(core, then, "a copy of it"), signal)
  await copy()
}

/** Copies a stopped sandbox without waking it: its disk is complete. */
async function captureStopped(
  core: OnHost<"machines" | "snapshots" | "templates">,
  source: SandboxRecord,
  { id, signal }: Draft,
): Promise<Captured> {
  const { machines, snapshots } = core.host
  const template = await templateOf(core, source)
  const hasMemory =
    source.state.kind === "cold" &&
    source.state.hasSnapshot &&
    (await machines.checkSnapshot(source.id, template)).fits
  await snapshots.capture({ id, sandboxId: source.id, storedMemory: hasMemory, signal })
  return { hasMemory, pausedMs: 0 }
}

async function captureRunning(
  core: Parts,
  source: SandboxRecord,
  machine: Machine,
  { id, signal }: Draft,
): Promise<Captured> {
  const { machines, snapshots } = core.host
  const wasHot = source.state.kind === "hot"
  const pausedAt = core.clock.nowMs()
  try {
    await machines.pause(machine)
    await machines.saveSnapshot(machine, { draft: id, signal })
    await snapshots.capture({ id, sandboxId: source.id, storedMemory: false, signal })
  } catch (cause) {
    const halted = errorCodeOf(cause) === "ENOSPC" && (await core.space.haltedFor(source, machine))
    if (halted) throw halted
    if (wasHot) await goOn(core, source, machine)
    throw cause
  }
  if (wasHot) await goOn(core, source, machine)
  const pausedMs = Math.round(core.clock.nowMs() - pausedAt)
  if (wasHot) await core.guests.get(source.id)?.ask({ op: "refresh" }, { deadlineMs: readyDeadlineMs })
  return { hasMemory: true, pausedMs }
}

/** Resumes the source. If that fails it has no channel, and the next request repairs it. */
async function goOn(
  core: Pick<Core, "endings" | "guests"> & OnHost<"machines">,
  source: SandboxRecord,
  machine: Machine,
): Promise<void> {
  try {
    await core.host.machines.resume(machine)
  } catch (error) {
    dropGuest(core, source.id, { cause: "channel_lost" })
    throw error
  }
}

/** An image may have no such program; the kit has it, unless the machine is older than kits. */
async function syncFiles(guest: Guest, signal: AbortSignal): Promise<void> {
  for (const program of [kitSync, "/bin/sync"]) {
    try {
      const command = { argv: [program], user: "root", timeoutMs: imageSyncDeadlineMs }
      const { exitCode } = await runInGuest(guest, command, signal)
      if (exitCode === 0) return
    } catch (error) {
      if (!(error instanceof AppError && (error.code === "not_found" || isGuestReason(error.reason))))
        throw error
    }
  }
  throw new AppError("unavailable", "the sandbox could not write out its files")
}

/** Syncs the guest's files, so that the copy's disk alone is as current as possible and the pause is short. */
async function writeOut(core: Pick<Core, "log">, guest: Guest, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted()
  try {
    await runInGuest(guest, { argv: ["/bin/sync"], user: "root", timeoutMs: syncDeadlineMs }, signal)
  } catch (error) {
    core.log.warn({ error }, "copying a sandbox that could not write out its files")
  }
}

/**
 * Starts a sandbox from a copy, with the identity of its own record: from the copy's memory if it fits, else from its
 * disk; `bootReason` says which and why. Needs its turn.
 */
export async function startCopy(
  core: ForStart,
  record: SandboxRecord,
  template: Template,
  { env, hasMemory }: { env: Record<string, string>; hasMemory: boolean },
): Promise<void> {
  let isPending = false
  const giveIdentity = async ({ guest }: Started) => {
    const identity = { env, growDisk: false, deadlineMs: readyDeadlineMs }
    isPending = (await personalise(core, record, guest, identity)).isPending
  }
  const prepareGuest = async (guest: Guest) => {
    if (isPending) await startClone(core, record, guest)
  }
  const saved = hasMemory || { reason: "its snapshot holds no memory" }
  await startSaved(core, record, template, saved, async () => {
    try {
      return await startSandbox(core, record, {
        from: { kind: "memory", template },
        giveIdentity,
        prepareGuest,
      })
    } catch (cause) {
      if (cause instanceof AppError && !cause.retryable) return { reason: cause.message }
      throw new AppError("unavailable", `the copy "${record.name}" did not start`, {
        cause,
        hint: "its source is as it was; try again",
      })
    }
  })
}
