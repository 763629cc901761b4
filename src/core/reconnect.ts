/** Reopens a channel that has closed, and finds out what happened to a machine that does not answer. */

import { AppError } from "@bhatti/contract/errors"
import type { SandboxRecord } from "../store/sandboxes.ts"
import { fateText, startAgain } from "./after-end.ts"
import type { Core, ForChannel, ForSettle } from "./core.ts"
import { lossOfFate } from "./endings.ts"
import { dropGuest, refreshAndKeep } from "./guest-channel.ts"
import type { Guest, Machine } from "./host.ts"
import { machineOf, storeHot } from "./machine-of.ts"
import { markEnded } from "./mark-ended.ts"

/** A machine whose channel has closed may be about to end; in that case the guest did not fail. */
const endDeadlineMs = 1000

export async function onChannelClosed(
  core: ForSettle & Pick<Core, "turns">,
  id: SandboxRecord["id"],
  guest: Guest,
  reason: string,
): Promise<void> {
  // The channel was closed on purpose, or another one has replaced it.
  if (core.guests.get(id) !== guest) return
  core.guests.delete(id)
  try {
    await core.turns.take(id, async () => {
      const record = await core.store.sandboxes.get(id)
      const hasMachine = record?.state.kind === "hot" || record?.state.kind === "warm"
      if (record && hasMachine && !core.guests.has(id)) await repair(core, record, reason)
    })
  } catch (error) {
    core.log.error({ sandbox: id, error }, "could not repair a sandbox whose channel closed")
  } finally {
    // Told already, unless its machine goes on.
    if (!core.guests.has(id)) core.endings.tell(id, { cause: "channel_lost" })
  }
}

/**
 * Connects to a running machine's guest. Returns false if the guest does not answer or the machine has ended. Throws if
 * QEMU itself does not answer (for example because a signal has stopped it): the machine is kept, and the next request
 * retries. Needs the sandbox's turn.
 */
export async function adopt(
  core: ForChannel & Pick<Core, "log" | "space">,
  record: SandboxRecord,
  machine: Machine,
): Promise<boolean> {
  const { machines } = core.host
  const giveUp = async (error: unknown) => {
    core.log.warn(
      { sandbox: record.id, error, ...(await machines.diagnose(machine)) },
      "a machine does not answer",
    )
    return false
  }

  const startedAt = core.clock.nowMs()
  let guest: Guest
  try {
    await core.space.keepHalted(record, machine)
    // A paused guest cannot answer.
    await machines.resume(machine)
    guest = await machines.connect(machine)
  } catch (error) {
    if (core.space.heldOf(record) !== undefined) throw error
    const isRefused = error instanceof AppError && !error.retryable
    const isOver = async () =>
      (await machines.fateOf(machine, { deadlineMs: endDeadlineMs })).how !== "running"
    if (isRefused || (await isOver())) return giveUp(error)
    throw new AppError("unavailable", `the machine of sandbox "${record.name}" does not answer`, {
      cause: error,
      hint: "try again in a moment; the daemon's log says why",
    })
  }
  try {
    await refreshAndKeep(core, record, guest)
  } catch (error) {
    // The guest's first write may have found no space.
    await core.space.keepHalted(record, machine)
    return giveUp(error)
  }
  try {
    // Removes the remains of an interrupted copy; they do not belong to this sandbox.
    await machines.removeSnapshot(record.id)
    await storeHot(core, record.id, machine)
  } catch (error) {
    // The guest answers, so it is kept although the host's disk fails; the next request retries.
    dropGuest(core, record.id, { cause: "channel_lost" })
    throw error
  }
  core.reconnects.set(guest, core.clock.nowMs())
  recordResumed(core, record, startedAt)
  core.log.info({ sandbox: record.id }, "adopted a running sandbox")
  return true
}

/** Its owner sees why a sandbox runs that was paused, though nobody asked for it. */
function recordResumed(core: Pick<Core, "clock" | "events">, record: SandboxRecord, startedAt: number): void {
  const { kind } = record.state
  if (kind !== "warm" && kind !== "stopping") return
  const reason =
    kind === "warm" ? "the daemon connected to it again" : "it was being saved when the daemon ended"
  const ms = Math.round(core.clock.nowMs() - startedAt)
  const meta = { by: "daemon", from: "warm", how: "resumed", reason, ms }
  core.events.record({ type: "thermal.wake", userId: record.userId, sandbox: record, meta })
}

/**
 * Repairs a hot or warm sandbox without a channel: reconnects if its machine runs, else only the disk is left. Needs
 * its turn.
 */
export async function repair(core: ForSettle, record: SandboxRecord, reason: string): Promise<void> {
  const machine = machineOf(record)
  if (!machine) return
  const { machines } = core.host
  if (machines.isRunning(machine) && (await adopt(core, record, machine))) return
  const fate = await machines.fateOf(machine, { deadlineMs: endDeadlineMs })
  const words = await machines.diagnose(machine)
  await machines.kill(machine)
  const ended = fateText(fate)
  const end = "console" in fate ? fate : undefined
  await markEnded(core, record, { cause: lossOfFate[fate.how], reason: ended, end })
  core.log.warn({ sandbox: record.id, reason, ...words, ...end }, ended)
  if (end?.how === "reboot") await startAgain(core, record)
}
