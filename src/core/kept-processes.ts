/** Processes that are kept in a sandbox, with or without a client. */

import { AppError } from "@bhatti/contract/errors"
import type {
  OutputChunk,
  ProcessAttach,
  ProcessEnd,
  ProcessRecord,
  ProcessSignal,
  ProcessStart,
  TerminalSize,
} from "@bhatti/contract/guest"
import { whenAborted } from "../lib/when-aborted.ts"
import { checkCommand, checkTerminal } from "../rules/input.ts"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Account } from "../store/users.ts"
import { answerDeadlineMs, awake } from "./awake.ts"
import type { Clock } from "./clock.ts"
import type { ForRequest } from "./core.ts"
import { explained, runsOn } from "./explained-process.ts"
import { findSandbox } from "./find.ts"
import type { Closing, Guest, GuestInput, GuestProcess, GuestProcesses } from "./host.ts"
import { elapsedWithWait } from "./process-presets.ts"
import { aboutKnown } from "./processes.ts"
import { withStartReason } from "./start-reason.ts"

const deadline = { deadlineMs: answerDeadlineMs }

/** Names or ids. */
export type OfProcess = { sandbox: string; process: string }
type Found = { sandboxId: SandboxRecord["id"]; record: ProcessRecord }

export async function startDetached(
  core: ForRequest,
  account: Account,
  sandbox: string,
  { command, timeoutSec }: { command: Omit<ProcessStart, "onDisconnect">; timeoutSec: number | undefined },
): Promise<Found & { isNew: boolean }> {
  checkCommand({ ...command, timeoutSec })
  const askedAt = core.clock.nowMs()
  const { sandboxId, processes } = await open(core, account, sandbox, "exec")
  const elapsedMs = elapsedWithWait(command.elapsedMs ?? 0, core.clock.nowMs() - askedAt)
  try {
    const timeout = timeoutSec === undefined ? {} : { timeoutMs: Math.ceil(timeoutSec * 1000) }
    const keyed = command.key === undefined ? {} : { elapsedMs }
    const start = { ...command, ...keyed, ...timeout, onDisconnect: "keep" } as const
    const { process, isNew } = await processes.startDetached(start, deadline)
    return { sandboxId, record: process, isNew }
  } catch (error) {
    throw command.key === undefined ? withUnknownStart(error) : withStartReason(error)
  }
}

/** Without a key nobody can ask again whether it was started. */
function withUnknownStart(error: unknown): unknown {
  if (!(error instanceof AppError && error.retryable)) return withStartReason(error)
  const hint = "the command may have been started; look at its processes; a start with a key can be repeated"
  return error.but({ hint, retryable: false })
}

export async function listProcesses(
  core: ForRequest,
  account: Account,
  sandbox: string,
): Promise<{ sandboxId: SandboxRecord["id"]; records: ProcessRecord[] }> {
  const { sandboxId, processes } = await open(core, account, sandbox, "ps")
  return { sandboxId, records: await processes.list(deadline) }
}

export async function getProcess(
  core: ForRequest,
  account: Account,
  { sandbox, process }: OfProcess,
): Promise<Found> {
  const { sandboxId, processes } = await open(core, account, sandbox, "ps")
  return { sandboxId, record: await find(processes, { sandbox, process }) }
}

export async function attachToProcess(
  core: ForRequest,
  account: Account,
  sandbox: string,
  options: ProcessAttach,
): Promise<GuestProcess> {
  const { guest, processes } = await open(core, account, sandbox, "attach")
  await find(processes, { sandbox, process: options.process })
  return explained(core, guest, processes.attach(options), {
    mayLeave: options.follow === false,
    ifStopped: runsOn,
  })
}

/** Resolves with the record when the process has ended, or after the time. */
export async function waitForProcess(
  core: ForRequest,
  account: Account,
  { sandbox, process }: OfProcess,
  { timeoutSec, signal }: { timeoutSec: number; signal: AbortSignal },
): Promise<Found> {
  const { sandboxId, guest, processes } = await open(core, account, sandbox, "wait")
  const now = await find(processes, { sandbox, process })
  if (now.ended) return { sandboxId, record: now }
  const waiting = processes.wait(now.id)
  using _leaving = whenAborted(signal, () => waiting.close())
  const ended = await within(core.clock, timeoutSec * 1000, waiting).catch(async (error: unknown) => {
    throw await core.endings.explain(guest, error, {
      during: "while its process was waited for",
      ifStopped: runsOn,
    })
  })
  return { sandboxId, record: ended ?? (await find(processes, { sandbox, process: now.id })) }
}

export async function signalProcess(
  core: ForRequest,
  account: Account,
  { sandbox, process }: OfProcess,
  signal: ProcessSignal,
): Promise<void> {
  const { processes } = await open(core, account, sandbox, "kill")
  await aboutKnown("process", sandbox, () => processes.signal(process, { ...signal, by: "client" }, deadline))
}

export async function inputOfProcess(
  core: ForRequest,
  account: Account,
  { sandbox, process }: OfProcess,
  options: { at?: number; close?: boolean },
): Promise<GuestInput> {
  const { processes } = await open(core, account, sandbox, "input")
  const { id } = await find(processes, { sandbox, process })
  return processes.input(id, options)
}

export async function resizeProcess(
  core: ForRequest,
  account: Account,
  { sandbox, process }: OfProcess,
  size: TerminalSize,
): Promise<void> {
  checkTerminal(size)
  const { processes } = await open(core, account, sandbox, "resize")
  await aboutKnown("process", sandbox, () => processes.resize(process, size, deadline))
}

/** Kills the process if it runs, and forgets it. */
export async function removeProcess(
  core: ForRequest,
  account: Account,
  { sandbox, process }: OfProcess,
): Promise<Found> {
  const { sandboxId, processes } = await open(core, account, sandbox, "kill")
  const found = await find(processes, { sandbox, process })
  const { id } = found
  if (found.ended) {
    await unlessGone(processes.forget(id, deadline))
    return { sandboxId, record: found }
  }
  const kill = processes.signal(id, { signal: "KILL", scope: "session", by: "client" }, deadline)
  await unlessGone(kill, ["not_found", "conflict"])
  // A killed process ends at once, unless its kernel is stuck.
  const waiting = within(core.clock, answerDeadlineMs, processes.wait(id))
  const record = await unlessGone(waiting.then((ended) => ended ?? "late"))
  if (record === "late") throw new AppError("unavailable", "the process was killed but has not ended yet")
  await unlessGone(processes.forget(id, deadline))
  return { sandboxId, record: record ?? { ...found, ended: killedByClient } }
}

const killedByClient: ProcessEnd = {
  ...{ exitCode: 137, signal: "KILL", by: "client", detail: null },
  reason: "signal",
}

/** Returns undefined if the process has been forgotten meanwhile, or with `conflict` has ended. */
async function unlessGone<Result>(
  work: Promise<Result>,
  codes: readonly string[] = ["not_found"],
): Promise<Result | undefined> {
  try {
    return await work
  } catch (error) {
    if (error instanceof AppError && codes.includes(error.code)) return undefined
    throw error
  }
}

export type OutputRequest = {
  stream: "stdout" | "stderr"
  offset: number | undefined
  sinceSec: number | undefined
  follow: boolean
  limit: number | undefined
}

/** Output of one stream, the offset of its first byte, and how many bytes there are so far. */
export async function readProcessOutput(
  core: ForRequest,
  account: Account,
  { sandbox, process }: OfProcess,
  { stream, offset, sinceSec, follow, limit }: OutputRequest,
): Promise<{
  source: { output: AsyncIterable<Uint8Array>; result: Promise<unknown>; close(): void }
  first: number
  total: number
}> {
  const { guest, processes } = await open(core, account, sandbox, "logs")
  const { id, output } = await find(processes, { sandbox, process })
  const { total } = output[stream]
  if (offset !== undefined && offset > total)
    throw new AppError("invalid", `the process has printed ${total} bytes so far`)
  const isPlaced = offset !== undefined && sinceSec === undefined
  const from = { stdout: output.stdout.total, stderr: output.stderr.total, [stream]: offset ?? 0 }
  const attachment = processes.attach({
    process: id,
    mode: "watch",
    follow,
    ...(isPlaced && { from }),
    ...(sinceSec !== undefined && { sinceMs: Math.ceil(sinceSec * 1000) }),
  })
  const client = explained(core, guest, attachment, { mayLeave: !follow, ifStopped: runsOn })
  const attached = await client.attached
  const first = attached.from[stream]
  return {
    source: {
      output: oneStream(client.output, stream, limit),
      result: limit === undefined ? client.result : Promise.resolve(),
      close: () => client.leave(),
    },
    first,
    total,
  }
}

/** A gap ends it with an error, so that nobody takes two parts for one. */
async function* oneStream(
  chunks: AsyncIterable<OutputChunk>,
  stream: "stdout" | "stderr",
  limit = Number.POSITIVE_INFINITY,
): AsyncGenerator<Uint8Array> {
  let left = limit
  if (left === 0) return
  for await (const { channel, bytes, skipped } of chunks) {
    if (channel !== stream) continue
    if (skipped !== undefined)
      throw new AppError("unavailable", `${skipped} bytes of output were dropped before they were read`)
    yield bytes.subarray(0, left)
    left -= bytes.length
    if (left <= 0) return
  }
}

async function open(
  core: ForRequest,
  account: Account,
  nameOrId: string,
  what: string,
): Promise<{ sandboxId: SandboxRecord["id"]; guest: Guest; processes: GuestProcesses }> {
  const record = await findSandbox(core, account, nameOrId)
  const guest = await awake(core, record, what)
  // A wake takes seconds; the key may have been revoked meanwhile.
  await account.confirm?.()
  return { sandboxId: record.id, guest, processes: guest.processes }
}

function find(processes: GuestProcesses, { sandbox, process }: OfProcess): Promise<ProcessRecord> {
  return aboutKnown("process", sandbox, () => processes.get(process, deadline))
}

/** Returns undefined if it takes longer. */
async function within(
  clock: Clock,
  ms: number,
  waiting: Closing<ProcessRecord>,
): Promise<ProcessRecord | undefined> {
  const late = Promise.withResolvers<undefined>()
  const alarm = clock.after(ms, () => late.resolve(undefined))
  try {
    return await Promise.race([waiting.result, late.promise])
  } finally {
    alarm.cancel()
    waiting.close()
  }
}
