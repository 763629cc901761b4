/** The init script of a sandbox: its session, its run at each boot, and its result. */

import type { ProcessNotice, ProcessStart } from "@bhatti/contract/guest"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Core } from "./core.ts"
import type { Guest } from "./host.ts"
import { session } from "./process-presets.ts"

const deadlineMs = 15_000
export const initSession = "init"
const failureTypes: Record<string, FailureType> = {
  [initSession]: "sandbox.init_failed",
  main: "sandbox.start_command_failed",
  "init-system": "sandbox.init_system_failed",
}
type FailureType = "sandbox.init_failed" | "sandbox.init_system_failed" | "sandbox.start_command_failed"

/** Images of others may lack bash, and a login shell would replace their variables. */
export function initStart({ imageConfig }: Pick<SandboxRecord, "imageConfig">, script: string): ProcessStart {
  const shell = imageConfig ? ["/bin/sh", "-c"] : ["/bin/bash", "-lc"]
  return { argv: [...shell, script], name: initSession, ...session({ rows: 24, cols: 80 }) }
}

/** Runs the script after a boot from disk. If it cannot be started, an event says so and the sandbox runs on. */
export async function runBootScript(
  core: Pick<Core, "events" | "log">,
  record: SandboxRecord,
  guest: Guest,
): Promise<void> {
  if (record.bootScript === null) return
  try {
    await guest.processes.startDetached(initStart(record, record.bootScript), { deadlineMs })
  } catch (error) {
    recordBootFailure(core, record, "sandbox.init_failed", error)
  }
}

/** Records that a program of the sandbox could not be started at a boot. */
export function recordBootFailure(
  core: Pick<Core, "events" | "log">,
  record: SandboxRecord,
  type: FailureType,
  error: unknown,
): void {
  core.log.warn({ sandbox: record.id, type, error }, "a program of a sandbox could not be started")
  const reason = error instanceof Error ? error.message : String(error)
  recordFailure(core, record, type, { reason })
}

/** Handles the guest's notice that a named process has ended. */
export function onProcessEnded(
  core: Pick<Core, "events">,
  record: SandboxRecord,
  { name, ended }: ProcessNotice,
): void {
  const type = failureTypes[name]
  if (type === undefined || (ended.exitCode === 0 && ended.signal === null)) return
  const reason =
    ended.signal === null ? `it exited with ${ended.exitCode}` : `it was ended by SIG${ended.signal}`
  recordFailure(core, record, type, { reason, exit_code: ended.exitCode })
}

function recordFailure(
  core: Pick<Core, "events">,
  record: SandboxRecord,
  type: FailureType,
  meta: { reason: string; exit_code?: number },
): void {
  core.events.record({
    type,
    userId: record.userId,
    sandbox: record,
    meta: { by: "guest", ...meta },
  })
}
