/**
 * Sessions: commands with a terminal that live in the guest independently of a connection. Requests, answers, and
 * an attached session as the host sees it.
 */

import type {
  SessionEnd,
  SessionNotice,
  SessionRecord,
  SessionStart,
  TerminalSize,
} from "@bhatti/contract/guest"
import { WireError } from "./frame.ts"
import { isObject, parseObject, requests } from "./message.ts"
import { Operation, type StreamLink } from "./operation.ts"

/** Starting a program on a guest that has just woken takes seconds at worst. */
const openDeadlineMs = 30_000
/** Only a guest that breaks the rules sends a longer list. */
const sessionsMax = 1024

export const sessionRequests = {
  open: (start: SessionStart, options: { attach: boolean }) => ({
    ...start,
    ...options,
    op: "session_open",
  }),
  attach: ({ session, tty }: { session?: string; tty: TerminalSize }) => ({
    op: "session_attach",
    ...(session !== undefined && { session }),
    tty: { rows: tty.rows, cols: tty.cols },
  }),
  list: () => ({ op: "sessions" }),
  kill: (session: string, signal: string) => ({ op: "session_kill", session, signal }),
  read: (session: string) => ({ op: "session_read", session }),
  watch: () => ({ op: "watch" }),
} as const

/** A session that this host is attached to. Closing it detaches. */
export class Session extends Operation<{ id: string; name: string | null }, SessionEnd> {
  constructor(id: number, link: StreamLink) {
    super(id, link, {
      parseFirst: parseOpened,
      parseAnswer: parseSessionEnd,
      toChunk: (_, bytes) => bytes,
      firstDeadlineMs: openDeadlineMs,
    })
  }

  get opened(): Promise<{ id: string; name: string | null }> {
    return this.first
  }

  signal(name: string): void {
    this.message(requests.signal(name))
  }

  resize(size: TerminalSize): void {
    this.message(requests.resize(size))
  }
}

/** The kept output of a session, being read. */
export class SessionOutput extends Operation<never, { bytes: number }> {
  constructor(id: number, link: StreamLink) {
    super(id, link, {
      parseFirst: () => undefined,
      parseAnswer: (value) => ({ bytes: isObject(value) && isCount(value.bytes) ? value.bytes : 0 }),
      toChunk: (_, bytes) => bytes,
      outputFails: true,
      stallDeadlineMs: openDeadlineMs,
    })
  }
}

/** Returns undefined for a message of another kind. */
export function parseNotice(payload: Uint8Array): SessionNotice | undefined {
  const { ended } = parseObject(payload)
  if (!isObject(ended)) return undefined
  const { session, name, exit_code: exitCode, signal } = ended
  if (typeof session !== "string" || typeof name !== "string" || !isCount(exitCode) || !isTextOrNull(signal))
    return undefined
  return { session, name, exitCode, signal }
}

export function parseStartedSession(value: unknown): { session: string } {
  if (!isObject(value) || typeof value.session !== "string") {
    throw new WireError("the guest's answer to session_open cannot be read")
  }
  return { session: value.session }
}

export function parseSessions(value: unknown): SessionRecord[] {
  if (!isObject(value) || !Array.isArray(value.sessions) || value.sessions.length > sessionsMax) {
    throw new WireError("the guest's list of sessions cannot be read")
  }
  return value.sessions.map(parseRecord)
}

function parseOpened(payload: Uint8Array): { id: string; name: string | null } | undefined {
  const { session } = parseObject(payload)
  if (!isObject(session) || typeof session.id !== "string" || !isTextOrNull(session.name)) return undefined
  return { id: session.id, name: session.name }
}

function parseRecord(value: unknown): SessionRecord {
  if (isObject(value)) {
    const { id, name, argv, pid, state, exit_code: exitCode, signal, attached } = value
    const createdUnixMs = value.created_unix_ms
    if (
      typeof id === "string" &&
      isTextOrNull(name) &&
      Array.isArray(argv) &&
      argv.every((argument): argument is string => typeof argument === "string") &&
      isCount(pid) &&
      (state === "running" || state === "ended") &&
      (exitCode === null || isCount(exitCode)) &&
      isTextOrNull(signal) &&
      typeof attached === "boolean" &&
      isCount(createdUnixMs)
    ) {
      return { id, name, argv, pid, state, exitCode, signal, attached, createdUnixMs }
    }
  }
  throw new WireError("the guest's list of sessions cannot be read")
}

function parseSessionEnd(value: unknown): SessionEnd {
  if (isObject(value)) {
    const { state, exit_code: exitCode, signal } = value
    if (state === "detached" || state === "taken_over") return { state }
    if (state === "ended" && isCount(exitCode) && isTextOrNull(signal)) return { state, exitCode, signal }
  }
  throw new WireError("the end of a session cannot be read")
}

function isTextOrNull(value: unknown): value is string | null {
  return value === null || typeof value === "string"
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0
}
