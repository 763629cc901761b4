/** Commands of a client, with their time limits, and sessions. */

import { AppError } from "@bhatti/contract/errors"
import type { ProcessEnd, ProcessRecord, ProcessStart, Terminal } from "@bhatti/contract/guest"
import { whenAborted } from "../lib/when-aborted.ts"
import { checkCommand, checkTerminal } from "../rules/input.ts"
import type { Account } from "../store/users.ts"
import { answerDeadlineMs, awake, awakeGuest } from "./awake.ts"
import type { Core, ForRequest } from "./core.ts"
import { explained, runsOn } from "./explained-process.ts"
import { findSandbox } from "./find.ts"
import type { GuestProcess, GuestProcesses } from "./host.ts"
import { recordLostCommand } from "./process-events.ts"
import { clientsCommand, elapsedWithWait, isSession, type Keyed, session } from "./process-presets.ts"
import { explainedCommand } from "./start-reason.ts"

const deadline = { deadlineMs: answerDeadlineMs }

export type RunningCommand = {
  process: GuestProcess
  result: Promise<ProcessEnd>
  /** Its client has left: the command is killed, unless the client has a key to come back with. */
  leave(): void
}

export type CommandRequest = {
  command: Omit<ProcessStart, "onDisconnect">
  timeoutSec: number | undefined
  /** The client can come back to the command. */
  keyed?: Keyed | undefined
  /** Kept output per stream, if a client without it could not get all of it again. */
  ringBytes?: number
  /** Aborts when the client has left. */
  signal?: AbortSignal
}

/** Runs a command for a client. It ends with its client, or a while after a client that has a key. */
export async function execInSandbox(
  core: ForRequest & Pick<Core, "metrics">,
  account: Account,
  nameOrId: string,
  { command, timeoutSec, keyed, ringBytes, signal }: CommandRequest,
): Promise<RunningCommand> {
  checkCommand({ ...command, timeoutSec })
  const askedAt = core.clock.nowMs()
  const guest = await awakeGuest(core, account, nameOrId, "exec")
  // A command with a key starts all the same: its client may come back, and would be told that it ran.
  if (signal?.aborted && !keyed)
    throw new AppError("unavailable", "the client has left", { retryable: false })
  const startedAt = core.clock.nowMs()
  const now = keyed && { ...keyed, elapsedMs: elapsedWithWait(keyed.elapsedMs, startedAt - askedAt) }
  core.metrics.execStarted()
  const started = guest.processes.start({
    ...command,
    ...clientsCommand(now, ringBytes),
    ...(timeoutSec !== undefined && { timeoutMs: Math.ceil(timeoutSec * 1000) }),
  })
  const ifStopped = keyed && goesOnFor(keyed)
  const process = explainedCommand(
    explained(core, guest, started, { ifStopped }),
    core.endings.sandboxOf(guest),
  )
  const leave = () => (keyed ? process.leave() : process.kill("client"))
  const leaving = signal && whenAborted(signal, leave)
  const result = endOf(process)
  const stopWatching = () => {
    core.metrics.execEnded(core.clock.nowMs() - startedAt)
    leaving?.[Symbol.dispose]()
  }
  result.then(stopWatching, stopWatching)
  const about = { guest, userId: account.id, program: command.argv?.[0] ?? "" }
  result.catch((error: unknown) => recordLostCommand(core, about, error))
  return { process, result, leave }
}

/** For a command whose client may come back; any other ends with its client. */
function goesOnFor({ graceMs }: Keyed): string {
  return `the command goes on when the sandbox is next used, for ${Math.ceil(graceMs / 1000)} s without its client`
}

/** The end of the command. Rejects if the client is not attached until then. */
async function endOf(process: GuestProcess): Promise<ProcessEnd> {
  const outcome = await process.result
  switch (outcome.state) {
    case "ended":
      return outcome.ended
    case "taken_over":
      throw new AppError("conflict", "another client has taken this command over", { reason: "taken_over" })
    case "left":
      throw new AppError("unavailable", "the command was left")
  }
}

export type ShellRequest = {
  /** Id or name of a session; if undefined, the newest detached session, else a new one. */
  session: string | undefined
  forceNew: boolean
  tty: Terminal
}

export async function openShell(
  core: ForRequest,
  account: Account,
  nameOrId: string,
  request: ShellRequest,
): Promise<{ session: GuestProcess; isNew: boolean }> {
  checkTerminal(request.tty)
  const record = await findSandbox(core, account, nameOrId)
  const guest = await awake(core, record, "shell")
  const { processes } = guest
  await account.confirm?.()
  core.events.record({
    type: "shell.session",
    userId: account.id,
    sandbox: record,
    meta: { by: "user" },
  })
  const { rows, cols } = request.tty
  const attachTo = (process: string) => ({
    session: explained(core, guest, processes.attach({ process, mode: "drive", tty: { rows, cols } }), {
      ifStopped: runsOn,
    }),
    isNew: false,
  })
  if (request.session !== undefined) return attachTo(request.session)
  const detached = request.forceNew ? undefined : newestDetached(await processes.list(deadline))
  if (detached) return attachTo(detached.id)
  return {
    session: explained(core, guest, processes.start(session(request.tty)), { ifStopped: runsOn }),
    isNew: true,
  }
}

/** Skips named sessions such as `init`, which are attached to only by name. */
function newestDetached(processes: ProcessRecord[]): ProcessRecord | undefined {
  return processes
    .filter((process) => isSession(process) && !process.ended && !process.driven && process.name === null)
    .sort((one, other) => other.createdUnixMs - one.createdUnixMs)[0]
}

export async function listSessions(
  core: ForRequest,
  account: Account,
  nameOrId: string,
): Promise<ProcessRecord[]> {
  return (await (await processesOf(core, account, nameOrId, "ps")).list(deadline)).filter(isSession)
}

/** Sends the signal to the whole session; one that has ended is forgotten. */
export async function killSession(
  core: ForRequest,
  account: Account,
  nameOrId: string,
  options: { session: string; signal: string },
): Promise<void> {
  const processes = await processesOf(core, account, nameOrId, "kill")
  await aboutKnown("session", nameOrId, async () => {
    const { id, ended } = await processes.get(options.session, deadline)
    if (ended) return await processes.forget(id, deadline)
    return await processes.signal(id, { signal: options.signal, scope: "session", by: "client" }, deadline)
  })
}

/** Reads the kept output of a session, also after its end, without disturbing attached clients. */
export async function readSessionOutput(
  core: ForRequest,
  account: Account,
  nameOrId: string,
  name: string,
): Promise<GuestProcess> {
  const processes = await processesOf(core, account, nameOrId, "logs")
  // A service has no terminal, and a name.
  const known = (await processes.list(deadline)).filter((one) => isSession(one) || one.name !== null)
  if (!known.some((one) => one.id === name || one.name === name)) {
    throw new AppError("not_found", `sandbox "${nameOrId}" has no session "${name}"`, {
      subject: { kind: "session", sandbox: nameOrId },
      hint: known.length === 0 ? "no session was started since it booted" : undefined,
    })
  }
  return processes.attach({ process: name, mode: "watch", follow: false })
}

async function processesOf(
  core: ForRequest,
  account: Account,
  nameOrId: string,
  what: string,
): Promise<GuestProcesses> {
  return (await awakeGuest(core, account, nameOrId, what)).processes
}

/** An answer that no such process is known names its sandbox. */
export async function aboutKnown<Result>(
  kind: "session" | "process",
  sandbox: string,
  work: () => Promise<Result>,
): Promise<Result> {
  try {
    return await work()
  } catch (error) {
    if (!(error instanceof AppError && error.code === "not_found")) throw error
    throw error.but({ subject: { kind, sandbox } })
  }
}
