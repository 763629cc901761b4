/** Events of processes in a sandbox that ended for another reason than their own. */

import { AppError, type LossReason } from "@bhatti/contract/errors"
import type { AbnormalEnd, MemoryKill, ProcessEnd } from "@bhatti/contract/guest"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Core } from "./core.ts"
import { isLossReason } from "./endings.ts"
import type { Guest } from "./host.ts"

/** The guest's kernel has killed a process for lack of memory, whichever it was. */
export function recordMemoryKill(core: Pick<Core, "events">, record: SandboxRecord, kill: MemoryKill): void {
  const mib = Math.round((kill.anonKib + kill.fileKib + kill.shmemKib) / 1024)
  const ofMib = Math.round(kill.memoryKib / 1024)
  core.events.record({
    type: "process.out_of_memory",
    userId: record.userId,
    sandbox: record,
    meta: {
      by: "kernel",
      cause: "out_of_memory",
      reason: kill.inCgroup
        ? `a control group inside had no memory left; ${kill.name} had ${mib} MiB`
        : `${kill.name} had ${mib} MiB of ${ofMib}`,
      pid: kill.pid,
      program: kill.name,
      memory_mb: mib,
      guest_memory_mb: ofMib,
    },
  })
}

const endedByGuest: ReadonlySet<LossReason> = new Set([
  "guest_poweroff",
  "guest_reboot",
  "guest_panic",
  "agent_failed",
  "init_ended",
])

/** The machine of a running command has ended, or its connection. `program`: the first word of the command. */
export function recordLostCommand(
  core: Pick<Core, "endings" | "events">,
  { guest, userId, program }: { guest: Guest; userId: SandboxRecord["userId"]; program: string },
  error: unknown,
): void {
  if (!(error instanceof AppError) || !isLossReason(error.reason)) return
  const user = error.subject?.kind === "ended_sandbox" ? error.subject.by : undefined
  const byItself = endedByGuest.has(error.reason) ? "guest" : "daemon"
  core.events.record({
    type: "exec.failed",
    userId,
    sandbox: core.endings.sandboxOf(guest),
    meta: {
      by: user === undefined ? byItself : "user",
      ...(user !== undefined && { user }),
      cause: error.reason,
      reason: error.message,
      program,
    },
  })
}

/** Senders of signals. A guest that names another one has made it up. */
const senders: ReadonlySet<string> = new Set([
  ...["client", "key_revoked", "daemon"],
  ...["agent", "guest", "kernel", "shutdown"],
])

/** A process has ended for another reason than its own. */
export function recordAbnormalEnd(core: Pick<Core, "events">, record: SandboxRecord, end: AbnormalEnd): void {
  const { process, name, program, pid, ended } = end
  core.events.record({
    type: "process.ended",
    userId: record.userId,
    sandbox: record,
    meta: {
      by: ended.by === null || senders.has(ended.by) ? ended.by : "guest",
      cause: ended.reason,
      reason: endText(ended),
      ...{ process, ...(name !== null && { name }), program, pid },
      exit_code: ended.exitCode,
      signal: ended.signal,
    },
  })
}

/** Text for a sentence about the process. */
export function endText({ reason, exitCode, signal, by }: ProcessEnd): string {
  switch (reason) {
    case "exited":
      return `it exited with ${exitCode}`
    case "signal":
      return `it was ended by SIG${signal}${by === null ? "" : `, sent by ${senderText(by)}`}`
    case "time_limit":
      return "its time limit was over"
    case "out_of_memory":
      return "the sandbox's kernel killed it for lack of memory"
    case "disconnected":
      return "its client left"
  }
}

function senderText(by: string): string {
  if (by === "guest") return "a process of the sandbox"
  if (by === "kernel") return "the sandbox's kernel"
  return by === "client" ? "a request" : by.replaceAll("_", " ")
}
