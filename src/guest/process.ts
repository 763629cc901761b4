/** Commands in the guest, seen from the host: their clients and everything else that is asked about them. */

import type {
  OutputChunk,
  ProcessAttach,
  ProcessAttached,
  ProcessOutcome,
  ProcessRecord,
  ProcessSignal,
  ProcessStart,
  TerminalSize,
} from "@bhatti/contract/guest"
import { channels } from "./frame.ts"
import { type Reading, requests } from "./message.ts"
import { type AboutPiece, type Meaning, Operation, type Stream, type StreamLink } from "./operation.ts"
import {
  parseAnswer,
  parseAttached,
  parseInputTaken,
  parseOutcome,
  parseShow,
  parseSkipped,
  parseStartedDetached,
  processRequests,
  readProcesses,
} from "./process-message.ts"

/** The channel as processes use it. */
export type Requests = {
  begin<S extends Stream>(request: object, make: (id: number, link: StreamLink) => S): S
  request<Answer>(
    request: { op: string },
    answer: Reading<Answer>,
    options: { deadlineMs: number },
  ): Promise<Answer>
}

/** Limit on texts that are no output; a guest has one for each attachment. */
const textsMax = 16
const done = { parse: () => undefined }

export class Processes {
  readonly #requests: Requests

  constructor(requests: Requests) {
    this.#requests = requests
  }

  start(start: ProcessStart): Process {
    return this.#client(processRequests.start(start, { attach: true }))
  }

  startDetached(
    start: ProcessStart,
    options: { deadlineMs: number },
  ): Promise<{ process: ProcessRecord; isNew: boolean }> {
    const request = processRequests.start(start, { attach: false })
    return this.#requests.request(request, { parse: parseStartedDetached }, options)
  }

  attach(options: ProcessAttach): Process {
    return this.#client(processRequests.attach(options))
  }

  list(options: { deadlineMs: number }): Promise<ProcessRecord[]> {
    return this.#requests.request(processRequests.list(), readProcesses(), options)
  }

  get(process: string, options: { deadlineMs: number }): Promise<ProcessRecord> {
    return this.#requests.request(processRequests.get(process), { parse: parseAnswer }, options)
  }

  wait(process: string): Operation<never, ProcessRecord> {
    return this.#requests.begin(
      processRequests.wait(process),
      (id, link) => new Operation(id, link, answering(parseAnswer)),
    )
  }

  signal(process: string, signal: ProcessSignal, options: { deadlineMs: number }): Promise<void> {
    return this.#requests.request(processRequests.signal(process, signal), done, options)
  }

  input(process: string, options: { at?: number; close?: boolean }): Operation<never, { input: number }> {
    return this.#requests.begin(
      processRequests.input(process, options),
      (id, link) => new Operation(id, link, answering(parseInputTaken)),
    )
  }

  resize(process: string, size: TerminalSize, options: { deadlineMs: number }): Promise<void> {
    return this.#requests.request(processRequests.resize(process, size), done, options)
  }

  forget(process: string, options: { deadlineMs: number }): Promise<void> {
    return this.#requests.request(processRequests.forget(process), done, options)
  }

  #client(request: object): Process {
    return this.#requests.begin(request, (id, link) => new Process(id, link))
  }
}

/** A client of a process. */
export class Process extends Operation<ProcessAttached, ProcessOutcome, OutputChunk> {
  #textsLeft = textsMax

  constructor(id: number, link: StreamLink) {
    super(id, link, { parseFirst: parseAttached, parseAnswer: parseOutcome, toChunk: toOutputChunk })
  }

  get attached(): Promise<ProcessAttached> {
    return this.first
  }

  override onMessage(payload: Uint8Array): boolean {
    if (super.onMessage(payload)) return true
    const text = parseShow(payload)
    if (text !== undefined && this.#textsLeft-- > 0) {
      this.insert(channels.stdout, Buffer.from(text))
      return true
    }
    const skipped = parseSkipped(payload)
    if (!skipped) return false
    const isOfStdout = this.skip(channels.stdout, skipped.stdout)
    return this.skip(channels.stderr, skipped.stderr) || isOfStdout
  }

  signal(signal: ProcessSignal): void {
    this.message(signal)
  }

  resize(size: TerminalSize): void {
    this.message(requests.resize(size))
  }

  /** Kills the process, or as soon as it starts. */
  kill(by: string): void {
    this.first.then(
      () => this.signal({ signal: "KILL", scope: "session", by }),
      () => undefined,
    )
  }

  leave(): void {
    this.close()
  }
}

export function toOutputChunk(
  from: number,
  bytes: Uint8Array,
  { skipped, isExtra }: AboutPiece,
): OutputChunk {
  return {
    channel: from === channels.stdout ? "stdout" : "stderr",
    bytes,
    ...(skipped > 0 && { skipped }),
    ...(isExtra && { isExtra }),
  }
}

function answering<Answer>(parse: (value: unknown) => Answer): Meaning<never, Answer, Uint8Array> {
  return { parseFirst: () => undefined, parseAnswer: parse, toChunk: (_, bytes) => bytes }
}
