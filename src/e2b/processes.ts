/** Processes of e2b's agent: each is a kept process of the sandbox, which a client finds by its pid or its tag. */

import { AppError } from "@bhatti/contract/errors"
import type { ProcessEnd, ProcessRecord } from "@bhatti/contract/guest"
import { Code, ConnectError, type HandlerContext } from "@connectrpc/connect"
import type { GuestProcess } from "../core/host.ts"
import {
  attachToProcess,
  inputOfProcess,
  listProcesses,
  resizeProcess,
  signalProcess,
  startDetached,
} from "../core/kept-processes.ts"
import type { Caller } from "./caller.ts"
import { keepaliveMs, withQuiet } from "./keepalive.ts"

/** The end of a process is told to clients that come so long afterwards. */
const retainMs = 30_000
const killed = new Map([
  ["KILL", "killed"],
  ["TERM", "terminated"],
  ["INT", "interrupt"],
  ["HUP", "hangup"],
])

type Size = { cols: number; rows: number }
type Selector = {
  selector:
    | { case: "pid"; value: number }
    | { case: "tag"; value: string }
    | { case: undefined; value?: undefined }
}
type Selected = { process?: Selector }
type Start = {
  process?: { cmd: string; args: string[]; envs: Record<string, string>; cwd?: string }
  pty?: { size?: Size }
  tag?: string
  stdin?: boolean
}
type Input = Selected & {
  input?: { input: { case: "stdin" | "pty"; value: Uint8Array } | { case: undefined } }
}

/** The service for the caller of this request. */
export function processHandlers(callerOf: (context: HandlerContext) => Caller) {
  return {
    async list(_: unknown, context: HandlerContext) {
      const { core, account, sandbox } = callerOf(context)
      const { records } = await listProcesses(core, account, sandbox)
      return { processes: records.filter(({ ended }) => !ended).map(viewProcess) }
    },

    async *start(request: Start, context: HandlerContext) {
      const { core, account, sandbox, user } = callerOf(context)
      const { process, pty, tag, stdin } = request
      if (!process) throw new AppError("invalid", "no process is given")
      const { record } = await startDetached(core, account, sandbox, {
        command: {
          argv: [process.cmd, ...process.args],
          env: process.envs,
          ...(process.cwd !== undefined && process.cwd !== "" && { cwd: process.cwd }),
          ...(user !== undefined && { user }),
          ...(tag !== undefined && { name: tag }),
          ...(pty && { tty: { rows: pty.size?.rows || 24, cols: pty.size?.cols || 80 } }),
          stdin: pty !== undefined || stdin !== false,
          retainMs,
        },
        timeoutSec: limitSec(context),
      })
      const from = { stdout: 0, stderr: 0 }
      const attach = { process: record.id, mode: "drive", from } as const
      const running = await attachToProcess(core, account, sandbox, attach)
      yield* events(running, record, context)
    },

    async *connect(request: Selected, context: HandlerContext) {
      const { core, account, sandbox } = callerOf(context)
      const record = await find(callerOf(context), request)
      const { stdout, stderr } = record.output
      // A client that comes later gets only what follows.
      const from = { stdout: stdout.total, stderr: stderr.total }
      const attach = { process: record.id, mode: "watch", from } as const
      yield* events(await attachToProcess(core, account, sandbox, attach), record, context)
    },

    async update(request: Selected & { pty?: { size?: Size } }, context: HandlerContext) {
      const { core, account, sandbox } = callerOf(context)
      const { id } = await find(callerOf(context), request)
      const size = request.pty?.size
      if (size)
        await resizeProcess(core, account, { sandbox, process: id }, { rows: size.rows, cols: size.cols })
      return {}
    },

    async sendInput(request: Input, context: HandlerContext) {
      const bytes = request.input?.input.case === undefined ? new Uint8Array() : request.input.input.value
      await input(callerOf(context), request, { bytes })
      return {}
    },

    async closeStdin(request: Selected, context: HandlerContext) {
      await input(callerOf(context), request, { close: true })
      return {}
    },

    async sendSignal(request: Selected & { signal: number }, context: HandlerContext) {
      const { core, account, sandbox } = callerOf(context)
      const { id } = await find(callerOf(context), request)
      const signal = request.signal === 9 ? "KILL" : "TERM"
      await signalProcess(core, account, { sandbox, process: id }, { signal, scope: "session" })
      return {}
    },
  }
}

async function input(
  caller: Caller,
  request: Selected,
  { bytes, close = false }: { bytes?: Uint8Array; close?: boolean },
): Promise<void> {
  const { core, account, sandbox } = caller
  const { id } = await find(caller, request)
  const target = await inputOfProcess(core, account, { sandbox, process: id }, { close })
  try {
    if (bytes) await Promise.race([target.write(bytes), target.result])
    target.endInput()
    await target.result
  } finally {
    target.close()
  }
}

async function find({ core, account, sandbox }: Caller, { process }: Selected): Promise<ProcessRecord> {
  const { records } = await listProcesses(core, account, sandbox)
  const selector = process?.selector
  const found = records.findLast((record) =>
    selector?.case === "pid"
      ? record.pid === selector.value && !record.ended
      : record.name !== null && record.name === selector?.value,
  )
  if (found) return found
  throw new AppError(
    "not_found",
    `process with ${selector?.case ?? "no selector"} ${selector?.value ?? ""} not found`,
  )
}

function viewProcess({ argv, cwd, pid, name }: ProcessRecord) {
  const [cmd = "", ...args] = argv
  return { config: { cmd, args, envs: {}, cwd }, pid, ...(name !== null && { tag: name }) }
}

type Event = { event: { event: { case: string; value: object } } }
const event = (name: string, value: object): Event => ({ event: { event: { case: name, value } } })

/** A client that leaves does not end the process. */
async function* events(
  running: GuestProcess,
  { pid, tty }: ProcessRecord,
  context: HandlerContext,
): AsyncGenerator<Event> {
  const { signal, requestHeader } = context
  const isLate = () => signal.reason instanceof ConnectError && signal.reason.code === Code.DeadlineExceeded
  const stop = () => running.leave()
  signal.addEventListener("abort", stop, { once: true })
  running.result.catch(() => undefined)
  try {
    if (signal.aborted) stop()
    yield event("start", { pid })
    const quietMs = keepaliveMs(requestHeader)
    for await (const chunk of withQuiet(running.output, quietMs)) {
      if (chunk === "quiet") yield event("keepalive", {})
      else if (chunk.bytes.length > 0) {
        const output = { case: tty ? "pty" : chunk.channel, value: chunk.bytes }
        yield event("data", { output })
      }
    }
    const outcome = await running.result
    if (isLate()) throw signal.reason
    if (outcome.state !== "ended") return
    // An end would be taken for the command's own.
    if (outcome.ended.reason === "time_limit")
      throw new ConnectError("the time limit of the command is over", Code.DeadlineExceeded)
    yield event("end", endOf(outcome.ended))
  } finally {
    signal.removeEventListener("abort", stop)
    running.leave()
  }
}

/** The guest keeps the limit, also when the client has left. */
function limitSec({ timeoutMs }: HandlerContext): number | undefined {
  const leftMs = timeoutMs()
  return leftMs === undefined ? undefined : Math.max(1, leftMs) / 1000
}

function endOf({ exitCode, signal }: ProcessEnd) {
  if (signal === null) return { exitCode, exited: true, status: `exit status ${exitCode}` }
  const status = `signal: ${killed.get(signal) ?? signal.toLowerCase()}`
  return { exitCode: -1, exited: false, status, error: status }
}
