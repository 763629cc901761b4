/**
 * Commands in a sandbox: a client's command and its time limit, sessions, and commands that are started and kept
 * without a client.
 */

import { AppError } from "@bhatti/contract/errors"
import type {
  ProcessAttach,
  ProcessEnd,
  ProcessRecord,
  ProcessSignal,
  ProcessStart,
  Terminal,
  TerminalSize,
} from "@bhatti/contract/guest"
import { checkCommand, checkTerminal } from "../rules/input.ts"
import type { Account } from "../store/users.ts"
import { answerDeadlineMs, awake, awakeGuest } from "./awake.ts"
import type { Clock } from "./clock.ts"
import type { Core, ForRequest } from "./core.ts"
import { explained } from "./explained-process.ts"
import { findSandbox } from "./find.ts"
import type { Closing, GuestInput, GuestProcess, GuestProcesses } from "./host.ts"
import { recordLostCommand } from "./process-events.ts"
import { clientsCommand, isSession, type Keyed, session } from "./process-presets.ts"
import { withStartReason } from "./start-reason.ts"

const deadline = { deadlineMs: answerDeadlineMs }

export type RunningCommand = { process: GuestProcess; result: Promise<ProcessEnd> }

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
  const guest = await awakeGuest(core, account, nameOrId, "exec")
  const startedAt = core.clock.nowMs()
  core.metrics.execStarted()
  const started = guest.processes.start({
    ...command,
    ...clientsCommand(keyed, ringBytes),
    ...(timeoutSec !== undefined && { timeoutMs: Math.ceil(timeoutSec * 1000) }),
  })
  const process = explained(core, guest, started)
  const leave = () => (keyed ? process.leave() : process.kill("client"))
  signal?.addEventListener("abort", leave, { once: true })
  const result = endOf(process)
  const stopWatching = () => {
    core.metrics.execEnded(core.clock.nowMs() - startedAt)
    signal?.removeEventListener("abort", leave)
  }
  result.then(stopWatching, stopWatching)
  const about = { guest, userId: account.id, program: command.argv?.[0] ?? "" }
  result.catch((error: unknown) => recordLostCommand(core, about, error))
  return { process, result }
}

/** The end of the command. Rejects if the client is not attached until then. */
async function endOf(process: GuestProcess): Promise<ProcessEnd> {
  const outcome = await process.result.catch((error: unknown) => {
    throw withStartReason(error)
  })
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
    session: explained(core, guest, processes.attach({ process, mode: "drive", tty: { rows, cols } })),
    isNew: false,
  })
  if (request.session !== undefined) return attachTo(request.session)
  const detached = request.forceNew ? undefined : newestDetached(await processes.list(deadline))
  if (detached) return attachTo(detached.id)
  return { session: explained(core, guest, processes.start(session(request.tty))), isNew: true }
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
  return (await listProcesses(core, account, nameOrId)).filter(isSession)
}

export async function listProcesses(
  core: ForRequest,
  account: Account,
  nameOrId: string,
): Promise<ProcessRecord[]> {
  return (await processesOf(core, account, nameOrId, "ps")).list(deadline)
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
  const known = (await processes.list(deadline)).filter(isSession)
  if (!known.some((one) => one.id === name || one.name === name)) {
    throw new AppError("not_found", `sandbox "${nameOrId}" has no session "${name}"`, {
      subject: { kind: "session", sandbox: nameOrId },
      hint: known.length === 0 ? "no session was started since it booted" : undefined,
    })
  }
  return processes.attach({ process: name, mode: "watch", follow: false })
}

/** Starts a command without a client. */
export async function startDetached(
  core: ForRequest,
  account: Account,
  nameOrId: string,
  { command, timeoutSec }: { command: Omit<ProcessStart, "onDisconnect">; timeoutSec: number | undefined },
): Promise<{ process: ProcessRecord; isNew: boolean }> {
  checkCommand({ ...command, timeoutSec })
  const processes = await processesOf(core, account, nameOrId, "exec")
  try {
    const timeout = timeoutSec === undefined ? {} : { timeoutMs: Math.ceil(timeoutSec * 1000) }
    return await processes.startDetached({ ...command, ...timeout, onDisconnect: "keep" }, deadline)
  } catch (error) {
    throw withStartReason(error)
  }
}

export type OfProcess = { sandbox: string; process: string }

export async function getProcess(
  core: ForRequest,
  account: Account,
  { sandbox, process }: OfProcess,
): Promise<ProcessRecord> {
  const processes = await processesOf(core, account, sandbox, "ps")
  return aboutKnown("process", sandbox, () => processes.get(process, deadline))
}

export async function attachToProcess(
  core: ForRequest,
  account: Account,
  sandbox: string,
  options: ProcessAttach,
): Promise<GuestProcess> {
  const guest = await awakeGuest(core, account, sandbox, "attach")
  const mayLeave = options.follow === false
  return explained(core, guest, guest.processes.attach(options), { mayLeave })
}

/** Resolves with the record of the ended process; closing it stops waiting. */
export async function waitForProcess(
  core: ForRequest,
  account: Account,
  { sandbox, process }: OfProcess,
): Promise<Closing<ProcessRecord>> {
  const processes = await processesOf(core, account, sandbox, "wait")
  await aboutKnown("process", sandbox, () => processes.get(process, deadline))
  return processes.wait(process)
}

export async function signalProcess(
  core: ForRequest,
  account: Account,
  { sandbox, process }: OfProcess,
  signal: ProcessSignal,
): Promise<void> {
  const processes = await processesOf(core, account, sandbox, "kill")
  await aboutKnown("process", sandbox, () => processes.signal(process, { ...signal, by: "client" }, deadline))
}

export async function inputOfProcess(
  core: ForRequest,
  account: Account,
  { sandbox, process }: OfProcess,
  options: { at?: number; close?: boolean },
): Promise<GuestInput> {
  return (await processesOf(core, account, sandbox, "input")).input(process, options)
}

export async function resizeProcess(
  core: ForRequest,
  account: Account,
  { sandbox, process }: OfProcess,
  size: TerminalSize,
): Promise<void> {
  checkTerminal(size)
  const processes = await processesOf(core, account, sandbox, "resize")
  await aboutKnown("process", sandbox, () => processes.resize(process, size, deadline))
}

/** Kills the process if it runs, and forgets it. */
export async function removeProcess(
  core: ForRequest,
  account: Account,
  { sandbox, process }: OfProcess,
): Promise<ProcessRecord> {
  const processes = await processesOf(core, account, sandbox, "kill")
  return aboutKnown("process", sandbox, async () => {
    const { id, ended } = await processes.get(process, deadline)
    if (!ended) await processes.signal(id, { signal: "KILL", scope: "session", by: "client" }, deadline)
    const record = await endingSoon(core.clock, processes.wait(id))
    await processes.forget(id, deadline)
    return record
  })
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

/** A killed process ends at once, unless its kernel is stuck. */
async function endingSoon(clock: Clock, waiting: Closing<ProcessRecord>): Promise<ProcessRecord> {
  const late = Promise.withResolvers<never>()
  const alarm = clock.after(answerDeadlineMs, () =>
    late.reject(new AppError("unavailable", "the process was killed but has not ended yet")),
  )
  try {
    return await Promise.race([waiting.result, late.promise])
  } finally {
    alarm.cancel()
    waiting.close()
  }
}
