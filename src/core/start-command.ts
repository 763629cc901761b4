/**
 * The start command of an image or of a create: a program that runs already when its template is frozen, so that each
 * clone has it running at once; and the ready command, which tells when that is.
 */

import { AppError } from "@bhatti/contract/errors"
import type { ProcessStart } from "@bhatti/contract/guest"
import type { SandboxRecord } from "../store/sandboxes.ts"
import { recordBootFailure } from "./boot-script.ts"
import { sleep } from "./clock.ts"
import type { Core } from "./core.ts"
import type { Guest, TemplatePrograms } from "./host.ts"
import { session } from "./process-presets.ts"
import { runInGuest } from "./run-in-guest.ts"
import { unlessAborted } from "./unless-aborted.ts"

export const mainSession = "main"
/** Databases and notebooks take seconds to start, and ten times as long under software emulation. */
const readyDeadlineMs = 180_000
const attemptDeadlineMs = 20_000
const betweenAttemptsMs = 200
const settleMs = 200
const askDeadlineMs = 15_000
const holdDeadlineMs = 30_000
/** By the host's clock, since the guest may run hostile code. */
const programsDeadlineMs = readyDeadlineMs + attemptDeadlineMs + holdDeadlineMs
/** Limit on the output of the start command that an error quotes. */
const quotedMax = 1500
/** A character takes up to four bytes. */
const quotedBytesMax = quotedMax * 4
/** The guest gives all hooks together 30 s. */
const hooksDeadlineMs = 45_000

function startOf(command: string): ProcessStart {
  return { argv: ["/bin/sh", "-c", command], name: mainSession, ...session({ rows: 24, cols: 80 }) }
}

/**
 * Starts the command in a template that is being made, waits until it is ready, and has the guest hold every program
 * still. The signal ends the wait, and so does one deadline for all of it, also where the guest does not answer.
 */
export async function startAndHold(
  core: Pick<Core, "clock">,
  guest: Guest,
  programs: TemplatePrograms,
  signal: AbortSignal,
): Promise<void> {
  const late = new AbortController()
  const alarm = core.clock.after(programsDeadlineMs, () => late.abort())
  const given = AbortSignal.any([signal, late.signal])
  try {
    await unlessAborted(untilHeld(core, guest, programs, given), given)
  } catch (error) {
    if (signal.aborted || !late.signal.aborted) throw error
    throw await notReady(core, guest, `was not ready after ${programsDeadlineMs / 1000} s`)
  } finally {
    alarm.cancel()
  }
}

async function untilHeld(
  core: Pick<Core, "clock">,
  guest: Guest,
  { start, ready }: TemplatePrograms,
  signal: AbortSignal,
): Promise<void> {
  const endMs = core.clock.nowMs() + readyDeadlineMs
  await guest.processes.startDetached(startOf(start), { deadlineMs: askDeadlineMs })
  while (!(await isReady(guest, ready, signal))) {
    const failed = await failureOf(guest)
    if (failed !== undefined) throw await notReady(core, guest, `ended before it was ready: ${failed}`)
    if (core.clock.nowMs() > endMs)
      throw await notReady(core, guest, `was not ready after ${readyDeadlineMs / 1000} s`)
    await sleep(core.clock, betweenAttemptsMs, signal)
    signal.throwIfAborted()
  }
  // A ready command such as `true` says nothing about a program that ends right after its start.
  await sleep(core.clock, settleMs, signal)
  const failed = await failureOf(guest)
  if (failed !== undefined) throw await notReady(core, guest, `ended at once: ${failed}`)
  await guest.ask({ op: "quiesce", hold: true }, { deadlineMs: holdDeadlineMs })
}

async function isReady(guest: Guest, command: string, signal: AbortSignal): Promise<boolean> {
  const attempt = { argv: ["/bin/sh", "-c", command], timeoutMs: attemptDeadlineMs }
  return (await runInGuest(guest, attempt, signal)).exitCode === 0
}

/** A command that has ended well may have left a server behind. */
async function failureOf(guest: Guest): Promise<string | undefined> {
  const { ended } = await guest.processes.get(mainSession, { deadlineMs: askDeadlineMs })
  if (!ended || ended.exitCode === 0) return undefined
  return ended.signal === null ? `it exited with ${ended.exitCode}` : `it was ended by SIG${ended.signal}`
}

async function notReady(core: Pick<Core, "clock">, guest: Guest, how: string): Promise<AppError> {
  const shown = new TextDecoder().decode(await endOfOutput(core, guest)).trim()
  const quoted = shown.length > quotedMax ? `…${shown.slice(-quotedMax)}` : shown
  return new AppError(
    "unavailable",
    `the start command ${how}; ${quoted === "" ? "it printed nothing" : `its output ends with:\n${quoted}`}`,
    { hint: "it runs without a network, and without the sandbox's variables and files", retryable: false },
  )
}

/** A hostile guest may send without an end: only the last bytes are kept, and only so long. */
async function endOfOutput(core: Pick<Core, "clock">, guest: Guest): Promise<Uint8Array> {
  const attached = guest.processes.attach({ process: mainSession, mode: "watch", follow: false })
  const late = Promise.withResolvers<void>()
  const alarm = core.clock.after(askDeadlineMs, () => late.resolve())
  let kept = Buffer.alloc(0)
  let isOver = false
  const collect = async () => {
    for await (const { bytes } of attached.output) {
      if (isOver) return
      kept = Buffer.concat([kept, bytes.subarray(-quotedBytesMax)]).subarray(-quotedBytesMax)
    }
    await attached.result
  }
  try {
    await Promise.race([collect(), late.promise])
  } catch (error) {
    if (!(error instanceof AppError)) throw error
  } finally {
    isOver = true
    alarm.cancel()
    attached.leave()
  }
  return kept
}

/** Runs the start command after a boot from disk. If it cannot be started, an event says so and the sandbox runs on. */
export async function runStartCommand(
  core: Pick<Core, "events" | "log">,
  record: SandboxRecord,
  guest: Guest,
): Promise<void> {
  if (record.startCommand === null) return
  try {
    await guest.processes.startDetached(startOf(record.startCommand), { deadlineMs: askDeadlineMs })
  } catch (error) {
    recordBootFailure(core, record, "sandbox.start_command_failed", error)
  }
}

/**
 * Lets the programs of a clone run on, which stood still until it had its identity, and runs the hooks of its image. A
 * failed hook is an event, and the sandbox runs.
 */
export async function startClone(
  core: Pick<Core, "events">,
  record: SandboxRecord,
  guest: Guest,
): Promise<void> {
  for (const { hook, reason } of await guest.ask({ op: "startClone" }, { deadlineMs: hooksDeadlineMs })) {
    core.events.record({
      type: "sandbox.hook_failed",
      userId: record.userId,
      sandbox: record,
      // Not its output: the hook has the sandbox's secrets in its environment.
      meta: { by: "guest", hook, reason },
    })
  }
}
