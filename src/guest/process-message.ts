/** The JSON of processes (generation 3): requests, records, answers. */

import {
  type AbnormalEnd,
  endReasons,
  type ProcessAttach,
  type ProcessAttached,
  type ProcessEnd,
  type ProcessNotice,
  type ProcessOutcome,
  type ProcessRecord,
  type ProcessSignal,
  type ProcessStart,
  type StreamOffsets,
  type TerminalSize,
} from "@bhatti/contract/guest"
import { parseDetail } from "./end-detail.ts"
import { WireError } from "./frame.ts"
import { isCount, isObject, isTextOrNull, parseObject, type Reading } from "./message.ts"

/** Only a guest that breaks the rules sends a longer list. */
const processesMax = 4096
const listBytesMax = 8 * 1024 * 1024
const showLengthMax = 4096
/** Limits on the texts of a record; the agent's own are shorter. */
const textLengthMax = 4096
const idLengthMax = 64

/** The operation comes first: the guest reads it without parsing the rest. */
export const processRequests = {
  start: (
    { elapsedMs, onDisconnect, graceMs, retainMs, ringBytes, timeoutMs, ...start }: ProcessStart,
    { attach }: { attach: boolean },
  ) => ({
    op: "process_start",
    ...start,
    elapsed_ms: elapsedMs,
    on_disconnect: onDisconnect,
    grace_ms: graceMs,
    retain_ms: retainMs,
    ring_bytes: ringBytes,
    timeout_ms: timeoutMs,
    attach,
  }),
  attach: ({ sinceMs, ...options }: ProcessAttach) => ({
    op: "process_attach",
    ...options,
    since_ms: sinceMs,
  }),
  list: () => ({ op: "process_list" }),
  get: (process: string) => ({ op: "process_get", process }),
  wait: (process: string) => ({ op: "process_wait", process }),
  signal: (process: string, signal: ProcessSignal) => ({ op: "process_signal", process, ...signal }),
  input: (process: string, options: { at?: number; close?: boolean }) => ({
    op: "process_input",
    process,
    ...options,
  }),
  resize: (process: string, { rows, cols }: TerminalSize) => ({ op: "process_resize", process, rows, cols }),
  forget: (process: string) => ({ op: "process_forget", process }),
} as const

/** The guest's first message to a client. Returns undefined for any other message. */
export function parseAttached(payload: Uint8Array): ProcessAttached | undefined {
  const message = parseObject(payload)
  if (!isObject(message.process)) return undefined
  const { is_new: isNew, input } = message
  const from = parseOffsets(message.from)
  const { written } = message
  const isCounted = isCount(input) && (written === undefined || isCount(written))
  if (typeof isNew !== "boolean" || !from || !isCounted) throw unreadable("attachment")
  const { id, name, pid } = parseProcess(message.process)
  return { id, name, pid, isNew, from, input, written }
}

/** Text for the terminal. Returns undefined for a message of another kind. */
export function parseShow(payload: Uint8Array): string | undefined {
  const { show } = parseObject(payload)
  return typeof show === "string" && show.length <= showLengthMax ? show : undefined
}

/** Returns undefined for a message of another kind. */
export function parseSkipped(payload: Uint8Array): StreamOffsets | undefined {
  const { skipped } = parseObject(payload)
  return skipped === undefined ? undefined : parseOffsets(skipped)
}

export function parseOutcome(value: unknown): ProcessOutcome {
  if (isObject(value)) {
    const { state } = value
    if (state === "left" || state === "taken_over") return { state }
    if (state === "ended") return { state, ended: parseEnd(value.ended) }
  }
  throw unreadable("end of a process")
}

export function parseStartedDetached(value: unknown): { process: ProcessRecord; isNew: boolean } {
  if (!isObject(value) || typeof value.is_new !== "boolean") throw unreadable("answer to process_start")
  return { process: parseProcess(value.process), isNew: value.is_new }
}

export function parseAnswer(value: unknown): ProcessRecord {
  if (!isObject(value)) throw unreadable("answer about a process")
  return parseProcess(value.process)
}

export function parseInputTaken(value: unknown): { input: number } {
  if (!isObject(value) || !isCount(value.input)) throw unreadable("answer to process_input")
  return { input: value.input }
}

/** Collects the messages of a list. */
export function readProcesses(): Reading<ProcessRecord[]> {
  const records: ProcessRecord[] = []
  let bytesLeft = listBytesMax
  return {
    parse: () => records,
    onMessage(payload) {
      const { processes } = parseObject(payload)
      if (!Array.isArray(processes)) return false
      bytesLeft -= payload.length
      if (bytesLeft < 0 || records.length + processes.length > processesMax)
        throw unreadable("list of processes")
      for (const one of processes) records.push(parseProcess(one))
      return true
    },
  }
}

/** The guest's report of a named process that has ended. Returns undefined for a message of another kind. */
export function parseNotice(payload: Uint8Array): ProcessNotice | undefined {
  const { ended } = parseObject(payload)
  if (!isObject(ended)) return undefined
  const { session, name } = ended
  if (typeof session !== "string" || typeof name !== "string") return undefined
  return { process: session, name, ended: parseEnd(ended) }
}

/** The guest's report of an end that was not the process's own. Returns undefined for a message of another kind. */
export function parseAbnormalEnd(payload: Uint8Array): AbnormalEnd | undefined {
  const told = parseObject(payload).process_ended
  if (!isObject(told)) return undefined
  const { process, name, program, pid } = told
  if (typeof process !== "string" || !isTextOrNull(name) || typeof program !== "string" || !isCount(pid))
    return undefined
  return { process, name, program, pid, ended: parseEnd(told.ended) }
}

/** An agent of generation 2 reports exit code and signal only. */
export function parseEnd(value: unknown): ProcessEnd {
  if (isObject(value)) {
    const { exit_code: exitCode, signal, by = null, detail = null } = value
    const { reason = signal === null ? "exited" : "signal" } = value
    const known = endReasons.find((one) => one === reason)
    const isPlain = isTextOrNull(signal) && isTextOrNull(by) && isWord(signal) && isWord(by)
    if (isCount(exitCode) && exitCode <= 255 && known && isPlain)
      return { exitCode, signal, reason: known, by, detail: parseDetail(detail) }
  }
  throw unreadable("end of a process")
}

/** A signal or an author: these reach terminals, and a guest may be hostile. */
function isWord(text: string | null): boolean {
  return text === null || /^[A-Za-z0-9_+-]{1,32}$/.test(text)
}

function parseProcess(value: unknown): ProcessRecord {
  if (!isObject(value)) throw unreadable("process")
  const { id, name, pid, argv, user, cwd, tty, state, driven, watchers } = value
  const { on_disconnect: onDisconnect, input_open: inputOpen } = value
  const { created_unix_ms: createdUnixMs, ended_unix_ms: endedUnixMs } = value
  if (
    typeof id !== "string" ||
    !isWord(id) ||
    !isTextOrNull(name) ||
    !isCount(pid) ||
    !Array.isArray(argv) ||
    !argv.every((argument): argument is string => typeof argument === "string") ||
    typeof user !== "string" ||
    typeof cwd !== "string" ||
    typeof tty !== "boolean" ||
    (state !== "running" && state !== "ended") ||
    (onDisconnect !== "kill" && onDisconnect !== "keep") ||
    typeof driven !== "boolean" ||
    !isCount(watchers) ||
    typeof inputOpen !== "boolean" ||
    !isCount(createdUnixMs) ||
    !(endedUnixMs === null || isCount(endedUnixMs))
  )
    throw unreadable("process")
  return {
    ...{ id: id.slice(0, idLengthMax), name: name?.slice(0, idLengthMax) ?? null, argv: cutWords(argv) },
    ...{ user: user.slice(0, textLengthMax), cwd: cwd.slice(0, textLengthMax) },
    ...{ pid, tty, onDisconnect, driven, watchers, inputOpen },
    ...{ createdUnixMs, endedUnixMs, output: parseOutput(value.output) },
    ended: state === "ended" ? parseEnd(value.ended) : null,
  }
}

function cutWords(words: string[]): string[] {
  const cut: string[] = []
  let left = textLengthMax
  for (const word of words) {
    if (left <= 0 || cut.length === textLengthMax) break
    cut.push(word.slice(0, left))
    left -= word.length
  }
  return cut
}

function parseOutput(value: unknown): ProcessRecord["output"] {
  const { stdout, stderr } = isObject(value) ? value : {}
  return { stdout: parseKept(stdout), stderr: parseKept(stderr) }
}

function parseKept(value: unknown): { first: number; total: number } {
  const { first, total } = isObject(value) ? value : {}
  if (!isCount(first) || !isCount(total)) throw unreadable("process")
  return { first, total }
}

function parseOffsets(value: unknown): StreamOffsets | undefined {
  const { stdout, stderr } = isObject(value) ? value : {}
  return isCount(stdout) && isCount(stderr) ? { stdout, stderr } : undefined
}

function unreadable(what: string): WireError {
  return new WireError(`the guest's ${what} cannot be read`)
}
