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

export const mainSession = "main"
/** Databases and notebooks take seconds to start, and ten times as long under software emulation. */
const readyDeadlineMs = 180_000
const attemptDeadlineMs = 20_000
const betweenAttemptsMs = 200
const askDeadlineMs = 15_000
/** Limit on the output of the start command that an error quotes. */
const quotedMax = 1500
/** The guest gives all hooks together 30 s. */
const hooksDeadlineMs = 45_000

function startOf(command: string): ProcessStart {
  return { argv: ["/bin/sh", "-c", command], name: mainSession, ...session({ rows: 24, cols: 80 }) }
}

/** Starts the command in a template that is being made, and waits until it is ready. */
export async function startUntilReady(
  core: Pick<Core, "clock" | "space">,
  guest: Guest,
  { start, ready }: TemplatePrograms,
): Promise<void> {
  const endMs = core.clock.nowMs() + readyDeadlineMs
  await guest.processes.startDetached(startOf(start), { deadlineMs: askDeadlineMs })
  while (!(await isReady(guest, ready))) {
    const failed = await failureOf(guest)
    if (failed !== undefined) throw await notReady(guest, `ended before it was ready: ${failed}`)
    if (core.clock.nowMs() > endMs)
      throw await notReady(guest, `was not ready after ${readyDeadlineMs / 1000} s`)
    if (await core.space.isShort())
      throw await notReady(guest, "was given up: the host's disk is nearly full")
    await sleep(core.clock, betweenAttemptsMs, AbortSignal.timeout(readyDeadlineMs))
  }
}

async function isReady(guest: Guest, command: string): Promise<boolean> {
  const attempt = { argv: ["/bin/sh", "-c", command], timeoutMs: attemptDeadlineMs }
  return (await runInGuest(guest, attempt)).exitCode === 0
}

/** A command that has ended well may have left a server behind. */
async function failureOf(guest: Guest): Promise<string | undefined> {
  const { ended } = await guest.processes.get(mainSession, { deadlineMs: askDeadlineMs })
  if (!ended || ended.exitCode === 0) return undefined
  return ended.signal === null ? `it exited with ${ended.exitCode}` : `it was ended by SIG${ended.signal}`
}

async function notReady(guest: Guest, how: string): Promise<AppError> {
  const shown = new TextDecoder().decode(await outputOf(guest)).trim()
  const quoted = shown.length > quotedMax ? `…${shown.slice(-quotedMax)}` : shown
  return new AppError(
    "unavailable",
    `the start command ${how}; ${quoted === "" ? "it printed nothing" : `its output ends with:\n${quoted}`}`,
    { hint: "it runs without a network, and without the sandbox's variables and files", retryable: false },
  )
}

async function outputOf(guest: Guest): Promise<Uint8Array> {
  try {
    const output = guest.processes.attach({ process: mainSession, mode: "watch", follow: false })
    const chunks: Uint8Array[] = []
    for await (const { bytes } of output.output) chunks.push(bytes)
    await output.result
    return Buffer.concat(chunks)
  } catch (error) {
    if (error instanceof AppError) return new Uint8Array()
    throw error
  }
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
  for (const failure of await guest.ask({ op: "startClone" }, { deadlineMs: hooksDeadlineMs })) {
    core.events.record({
      type: "sandbox.hook_failed",
      userId: record.userId,
      sandbox: record,
      meta: { by: "guest", ...failure },
    })
  }
}
