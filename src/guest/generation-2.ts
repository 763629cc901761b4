/**
 * Commands of a guest whose agent speaks generation 2, as saved snapshots and adopted machines may hold it. It has
 * commands that end with their client, and sessions, which have a terminal and are kept. Everything else is refused.
 */

import { AppError } from "@bhatti/contract/errors"
import type {
  OutputChunk,
  ProcessAttach,
  ProcessAttached,
  ProcessEnd,
  ProcessOutcome,
  ProcessRecord,
  ProcessSignal,
  ProcessStart,
  TerminalSize,
} from "@bhatti/contract/guest"
import { WireError } from "./frame.ts"
import { isCount, isObject, isTextOrNull, parseObject, requests } from "./message.ts"
import { Operation, quiet, type StreamLink } from "./operation.ts"
import { type Requests, toOutputChunk } from "./process.ts"
import { parseEnd } from "./process-message.ts"

/** Starting a program on a guest that has just woken takes seconds at worst. */
const openDeadlineMs = 30_000
const waitDelayMsMin = 20
const waitDelayMsMax = 1000
/** Only a guest that breaks the rules sends a longer list. */
const sessionsMax = 1024
const fromTheBeginning = { stdout: 0, stderr: 0 }

type Command = Omit<ProcessStart, "onDisconnect">

export const earlierRequests = {
  /** The operation comes first: the guest reads it without parsing the rest. */
  exec: ({ argv, env, cwd, user, stdin, tty }: Command) => ({
    ...{ op: "exec", argv, env, cwd, user, stdin, tty },
  }),
  open: ({ argv, env, cwd, user, name, tty }: Command, { attach }: { attach: boolean }) => ({
    ...{ op: "session_open", argv, env, cwd, user, name, tty, attach },
  }),
  attach: ({ process, tty }: { process?: string; tty?: TerminalSize | undefined }) => ({
    op: "session_attach",
    session: process,
    tty: tty && { rows: tty.rows, cols: tty.cols },
  }),
  list: () => ({ op: "sessions" }),
  kill: (session: string, signal: string) => ({ op: "session_kill", session, signal }),
  read: (session: string) => ({ op: "session_read", session }),
  signal: ({ signal }: ProcessSignal) => ({ signal }),
} as const

export class EarlierProcesses {
  readonly #requests: Requests

  constructor(requests: Requests) {
    this.#requests = requests
  }

  /** A command that was sent before may have run already, and the guest cannot tell. */
  start(start: ProcessStart): Client {
    if (start.onDisconnect === "keep" && start.tty)
      return this.#begin(earlierRequests.open(start, { attach: true }), sessionMeaning)
    const cannot =
      start.elapsedMs !== undefined && start.elapsedMs > 0
        ? "tell whether the command has run"
        : start.onDisconnect === "keep" || start.name !== undefined
          ? "keep commands without a terminal"
          : undefined
    if (cannot !== undefined) return new Client(0, deadLink, commandMeaning).refused(refusal(cannot))
    const { timeoutMs } = start
    return this.#begin(earlierRequests.exec(start), commandMeaning, timeoutMs)
  }

  async startDetached(
    start: ProcessStart,
    options: { deadlineMs: number },
  ): Promise<{ process: ProcessRecord; isNew: boolean }> {
    if (!start.tty) throw refusal("keep commands without a terminal")
    if ((start.elapsedMs ?? 0) > 0) throw refusal("tell whether the command has run")
    const request = earlierRequests.open(start, { attach: false })
    const id = await this.#requests.request(request, { parse: parseStartedSession }, options)
    return { process: await this.get(id, options), isNew: true }
  }

  attach(options: ProcessAttach): Client {
    if (options.mode === "drive") return this.#begin(earlierRequests.attach(options), sessionMeaning)
    if (options.follow !== false || options.from || options.sinceMs !== undefined)
      return new Client(0, deadLink, sessionMeaning).refused(refusal("show one session to several clients"))
    return this.#begin(earlierRequests.read(options.process), replayMeaning)
  }

  list(options: { deadlineMs: number }): Promise<ProcessRecord[]> {
    return this.#requests.request(earlierRequests.list(), { parse: parseSessions }, options)
  }

  /** A name is that of a running session, else of the last ended one. */
  async get(process: string, options: { deadlineMs: number }): Promise<ProcessRecord> {
    const known = (await this.list(options)).filter(({ id, name }) => id === process || name === process)
    const found = known.find(({ ended }) => !ended) ?? known.at(-1)
    if (!found) throw new AppError("not_found", `no process "${process}"`)
    return found
  }

  /** Such a guest tells no end by itself, so it is asked again and again. */
  wait(process: string): { result: Promise<ProcessRecord>; close(): void } {
    const left = Promise.withResolvers<never>()
    const untilEnded = async () => {
      for (let delayMs = waitDelayMsMin; ; delayMs = Math.min(2 * delayMs, waitDelayMsMax)) {
        const record = await this.get(process, { deadlineMs: openDeadlineMs })
        if (record.ended) return record
        await Promise.race([new Promise((resolve) => setTimeout(resolve, delayMs)), left.promise])
      }
    }
    const result = quiet(Promise.race([untilEnded(), left.promise]))
    quiet(left.promise)
    return { result, close: () => left.reject(new AppError("unavailable", "it is waited for no longer")) }
  }

  /** A signal goes to the whole session. */
  signal(process: string, { signal }: ProcessSignal, options: { deadlineMs: number }): Promise<void> {
    const request = earlierRequests.kill(process, signal)
    return this.#requests.request(request, { parse: () => undefined }, options)
  }

  input() {
    const refused = () => quiet(Promise.reject(refusal("type into a session of another client")))
    return { result: refused(), write: refused, endInput() {}, close() {} }
  }

  async resize(): Promise<never> {
    throw refusal("resize a session of another client")
  }

  async forget(process: string, options: { deadlineMs: number }): Promise<void> {
    const { ended } = await this.get(process, options)
    if (!ended) throw new AppError("conflict", `process "${process}" still runs`)
    await this.signal(process, { signal: "KILL" }, options)
  }

  #begin(request: object, meaning: ClientMeaning, timeoutMs?: number): Client {
    return this.#requests.begin(request, (id, link) => new Client(id, link, meaning, timeoutMs))
  }
}

type ClientMeaning = {
  first: (payload: Uint8Array) => ProcessAttached | undefined
  answer: (value: unknown) => ProcessOutcome
  /** Closing the stream kills the command. */
  isKilledByClose: boolean
  firstDeadlineMs?: number
}

const commandMeaning: ClientMeaning = {
  first: parseStarted,
  answer: (value) => ({ state: "ended", ended: parseEnd(value) }),
  isKilledByClose: true,
}
const sessionMeaning: ClientMeaning = {
  first: parseOpened,
  answer: parseSessionEnd,
  isKilledByClose: false,
  firstDeadlineMs: openDeadlineMs,
}
const replayMeaning: ClientMeaning = {
  first: () => undefined,
  answer: () => ({ state: "left" }),
  isKilledByClose: false,
}

const unknown: ProcessAttached = {
  ...{ id: undefined, name: null, pid: undefined, isNew: false, from: fromTheBeginning },
  input: undefined,
  written: undefined,
}

/** For a client that is refused before anything is sent. */
const deadLink: StreamLink = { send() {}, room: async () => undefined, leave() {} }

/** A client of a command or a session. */
export class Client extends Operation<ProcessAttached, ProcessOutcome, OutputChunk> {
  readonly #isKilledByClose: boolean
  readonly #isReplay: boolean
  readonly #outcome: Promise<ProcessOutcome>
  #killedBy: "time_limit" | { by: string } | undefined

  constructor(id: number, link: StreamLink, meaning: ClientMeaning, timeoutMs?: number) {
    super(id, link, {
      parseFirst: meaning.first,
      parseAnswer: meaning.answer,
      toChunk: toOutputChunk,
      ...(meaning.firstDeadlineMs !== undefined && { firstDeadlineMs: meaning.firstDeadlineMs }),
      // A replay has no first message.
      ...(meaning === replayMeaning && { outputFails: true, stallDeadlineMs: openDeadlineMs }),
    })
    this.#isReplay = meaning === replayMeaning
    this.#isKilledByClose = meaning.isKilledByClose
    const timer = timeoutMs === undefined ? undefined : setTimeout(() => this.#end("time_limit"), timeoutMs)
    this.#outcome = quiet(
      super.result.then((outcome) => this.#withReason(outcome)).finally(() => clearTimeout(timer)),
    )
  }

  override get result(): Promise<ProcessOutcome> {
    return this.#outcome
  }

  get attached(): Promise<ProcessAttached> {
    return this.#isReplay ? Promise.resolve(unknown) : this.first
  }

  refused(error: AppError): this {
    this.onLost(error)
    return this
  }

  signal(signal: ProcessSignal): void {
    this.message(earlierRequests.signal(signal))
  }

  resize(size: TerminalSize): void {
    this.message(requests.resize(size))
  }

  kill(by: string): void {
    if (this.#isKilledByClose) this.#end({ by })
    else this.signal({ signal: "KILL" })
  }

  leave(): void {
    this.close()
  }

  #end(killedBy: "time_limit" | { by: string }): void {
    this.#killedBy ??= killedBy
    this.close()
  }

  /** The agent reports the signal of our own kill; only this side knows the reason. */
  #withReason(outcome: ProcessOutcome): ProcessOutcome {
    const killedBy = this.#killedBy
    if (outcome.state !== "ended" || !killedBy || outcome.ended.signal !== "KILL") return outcome
    const reason: Partial<ProcessEnd> = killedBy === "time_limit" ? { reason: killedBy } : killedBy
    return { state: "ended", ended: { ...outcome.ended, ...reason } }
  }
}

function refusal(what: string): AppError {
  return new AppError("unavailable", `this sandbox runs an earlier agent, which cannot ${what}`, {
    hint: "restart the sandbox to get the agent of today; its programs end",
    retryable: false,
  })
}

/** Reads a message of a running command. Returns undefined for a message that this host does not know. */
export function parseStarted(payload: Uint8Array): ProcessAttached | undefined {
  const { started } = parseObject(payload)
  if (!isObject(started) || typeof started.pid !== "number") return undefined
  return {
    id: undefined,
    name: null,
    pid: started.pid,
    isNew: true,
    from: fromTheBeginning,
    input: 0,
    written: undefined,
  }
}

function parseOpened(payload: Uint8Array): ProcessAttached | undefined {
  const { session } = parseObject(payload)
  if (!isObject(session) || typeof session.id !== "string" || !isTextOrNull(session.name)) return undefined
  const { id, name } = session
  return { ...unknown, id, name }
}

export function parseStartedSession(value: unknown): string {
  if (!isObject(value) || typeof value.session !== "string") {
    throw new WireError("the guest's answer to session_open cannot be read")
  }
  return value.session
}

export function parseSessions(value: unknown): ProcessRecord[] {
  if (!isObject(value) || !Array.isArray(value.sessions) || value.sessions.length > sessionsMax) {
    throw new WireError("the guest's list of sessions cannot be read")
  }
  return value.sessions.map(parseSession)
}

function parseSession(value: unknown): ProcessRecord {
  if (isObject(value)) {
    const { id, name, argv, pid, state, attached, created_unix_ms: createdUnixMs } = value
    if (
      typeof id === "string" &&
      isTextOrNull(name) &&
      Array.isArray(argv) &&
      argv.every((argument): argument is string => typeof argument === "string") &&
      isCount(pid) &&
      (state === "running" || state === "ended") &&
      typeof attached === "boolean" &&
      isCount(createdUnixMs)
    ) {
      const ended = state === "ended" ? parseEnd(value) : null
      const empty = { first: 0, total: 0 }
      return {
        ...{ id, name, argv, pid, ended, createdUnixMs, user: "", cwd: "", tty: true, onDisconnect: "keep" },
        ...{ driven: attached, watchers: 0, inputOpen: !ended, endedUnixMs: null },
        output: { stdout: empty, stderr: empty },
      }
    }
  }
  throw new WireError("the guest's list of sessions cannot be read")
}

function parseSessionEnd(value: unknown): ProcessOutcome {
  const state = isObject(value) ? value.state : undefined
  if (state === "detached") return { state: "left" }
  if (state === "taken_over") return { state }
  if (state === "ended") return { state, ended: parseEnd(value) }
  throw new WireError("the end of a session cannot be read")
}
