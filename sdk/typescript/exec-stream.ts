/**
 * The client's end of the exec socket and of a process's socket (`contract/exec.ts`): one command with streamed output,
 * standard input and signals. At most `window` bytes are in memory in each direction: `write` waits until the daemon
 * has acknowledged earlier input.
 *
 * A lost connection is opened again. The command's key, or its id, finds it; its output follows from the first byte
 * that this side lacks, and input that its program has not taken is sent again.
 */

import type { Api } from "@bhatti/contract/api"
import { AppError } from "@bhatti/contract/errors"
import type { ExecClientMessage, ExecServerMessage, SignalName } from "@bhatti/contract/exec"
import { limits } from "@bhatti/contract/limits"
import type { z } from "zod"
import { deferred } from "./deferred.ts"
import type { OnNotice } from "./notice.ts"
import { type Reconnection, randomKey, unknownFate } from "./reconnection.ts"
import { SentInput } from "./sent-input.ts"
import type { Socket } from "./socket.ts"
import { type Connection, type StreamOutput, StreamSocket } from "./stream-socket.ts"

export type ExecStreamStart = z.input<Api["execSocket"]["socket"]["start"]>
export type ExecExit = Omit<Extract<ExecServerMessage, { type: "exit" }>, "type">
type Started = Extract<ExecServerMessage, { type: "started" }>
type Offsets = { stdout: number; stderr: number }

/** Large enough to cost little per byte, small enough that acknowledgements come evenly. */
const inputPieceBytes = 64 * 1024
const channels: Record<number, StreamOutput["channel"]> = { 1: "stdout", 2: "stderr" }

export type ExecConnection = Omit<Connection, "open"> & {
  /** `received` are the bytes that this side has, once it knows. */
  open: (received: Offsets | undefined) => Socket | Promise<Socket>
  /** Resolves to true if the daemon knows keys of commands. */
  knowsKeys: () => Promise<boolean>
}

export type ExecStreamOptions = {
  /** The command to start; without it the socket is that of a process. */
  start: ExecStreamStart | undefined
  /** Its input reaches nobody, and it may miss output. */
  isWatching?: boolean
  window: number
  reconnection: Reconnection
  onNotice?: OnNotice | undefined
}

export class ExecStream {
  /** The command's result. Rejects if it could not be run or the connection was lost. */
  readonly exit: Promise<ExecExit>
  /** Resolves when the command runs, or this side is attached to it. */
  readonly started: Promise<void>

  readonly #socket: StreamSocket<ExecClientMessage, ExecServerMessage, ExecExit>
  readonly #window: number
  readonly #start: ExecStreamStart | undefined
  readonly #input = new SentInput()
  /** Undefined if the daemon does not know keys. */
  #key: string | undefined
  /** Undefined: the daemon's default. */
  readonly #graceSec: number | undefined
  #firstSentMs: number | undefined
  readonly #isWatching: boolean
  #received: Offsets | undefined
  /** Input of others that a kept process had before this stream's. */
  #inputBase: number | undefined
  readonly #skipped: Offsets = { stdout: 0, stderr: 0 }
  #process: { id: string | undefined } | undefined
  #isInputEnded = false
  /** False on another connection until its program has told how much input it has. */
  #isInputReady = true
  readonly #onStarted: () => void
  readonly #onNotice: OnNotice | undefined
  #wakeWriter: () => void = () => {}

  constructor(
    connection: ExecConnection,
    { start, isWatching = false, window, reconnection, onNotice }: ExecStreamOptions,
  ) {
    this.#start = start
    this.#onNotice = onNotice
    this.#isWatching = isWatching
    this.#graceSec = reconnection.forSec
    this.#key = start?.key ?? (this.#graceSec === 0 ? undefined : randomKey())
    this.#window = start ? Math.min(start.window ?? window, limits.execKeyedWindowBytes) : window
    this.#socket = new StreamSocket({
      ...connection,
      open: () => connection.open(this.#received),
      window: this.#window,
      firstMessage: (window) => start && this.#firstMessage(start, window),
      readFrame: (frame) => this.#readFrame(frame),
      onMessage: (message) => this.#receive(message),
      onChange: () => this.#wakeWriter(),
      lostMessage: "the connection to the daemon was lost while the command ran",
      reconnection,
      mayReconnect: () => {
        this.#isInputReady = false
        return this.#process ? this.#process.id !== undefined : start === undefined || this.#key !== undefined
      },
      onRefused: async (error) => {
        const isDaemons = error.code === "invalid" && error.reason === undefined
        const isOfKey = isDaemons && this.#process === undefined && this.#key !== undefined
        if (!isOfKey || start === undefined || (await connection.knowsKeys())) return false
        this.#key = undefined
        // The refusal has used up the input that came with the key.
        this.#isInputReady = false
        return true
      },
    })
    this.exit = this.#socket.end
    const { promise, resolve, reject } = deferred<void>()
    this.started = promise
    promise.catch(() => undefined)
    this.#onStarted = resolve
    this.exit.then(() => resolve(), reject)
  }

  /** Output in order. Ends when the command has ended or failed; `exit` then has the result. */
  get output(): AsyncIterableIterator<StreamOutput> {
    return this.#socket.output
  }

  /** Returns whether the command has begun to run. */
  get hasStarted(): boolean {
    return this.#process !== undefined
  }

  /** True while a lost connection is being opened again. */
  get isLost(): boolean {
    return this.#socket.isLost
  }

  /** The process's id, once it has started; undefined in a sandbox that keeps no commands. */
  get processId(): string | undefined {
    return this.#process?.id
  }

  /** Resolves when more input may be written; await it before the next call. Input to an ended command is dropped. */
  async write(bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    for (let start = 0; start < bytes.length; start += inputPieceBytes) {
      const piece = bytes.subarray(start, start + inputPieceBytes)
      while (!this.#socket.isEnded && !this.#mayWrite(piece)) {
        const { promise, resolve } = deferred<void>()
        this.#wakeWriter = resolve
        await promise
      }
      if (this.#socket.isEnded) return
      this.#input.add(piece)
      this.#socket.send(piece)
    }
  }

  endInput(): void {
    this.#isInputEnded = true
    if (this.#isInputReady) this.#socket.tell({ type: "stdin_end" })
  }

  signal(signal: SignalName): void {
    this.#socket.tell({ type: "signal", signal })
  }

  resize(size: { rows: number; cols: number }): void {
    this.#socket.tell({ type: "resize", rows: size.rows, cols: size.cols })
  }

  /** Closes the connection; a command that was started here and still runs is killed. */
  close(): void {
    if (this.#start && this.#socket.isOpen && !this.#socket.isEnded) this.signal("KILL")
    this.#socket.close()
  }

  /** Closes the connection and leaves the process as it is. */
  leave(): void {
    this.#socket.close()
  }

  /** After `close`: resolves once everything is sent, or after the timeout. */
  async closed({ timeoutMs }: { timeoutMs: number }): Promise<void> {
    const { promise, resolve } = deferred<void>()
    const timer = setTimeout(resolve, timeoutMs)
    await Promise.race([this.#socket.closed, promise])
    clearTimeout(timer)
  }

  #firstMessage(start: ExecStreamStart, window: number): ExecStreamStart {
    const nowMs = performance.now()
    const elapsedMs = this.#firstSentMs === undefined ? 0 : Math.ceil(nowMs - this.#firstSentMs) + 1
    this.#firstSentMs ??= nowMs
    if (this.#key === undefined) return { ...start, window }
    const grace =
      this.#graceSec === undefined ? {} : { grace_sec: Math.min(this.#graceSec, limits.execGraceSecMax) }
    const keyed = { ...start, ...grace, window, key: this.#key, elapsed_ms: elapsedMs }
    return this.#received ? { ...keyed, from: this.#received } : keyed
  }

  #mayWrite(piece: Uint8Array): boolean {
    const { isOpen } = this.#socket
    return isOpen && this.#isInputReady && this.#input.unacknowledged + piece.length <= this.#window
  }

  #readFrame(frame: Uint8Array<ArrayBuffer>): StreamOutput | undefined {
    const channel = channels[frame[0] ?? 0]
    if (channel === undefined) return undefined
    const bytes = frame.subarray(1)
    if (this.#received) this.#received[channel] += bytes.length
    const skipped = this.#skipped[channel]
    this.#skipped[channel] = 0
    return { channel, bytes, ...(skipped > 0 && { skipped }) }
  }

  #receive(message: Exclude<ExecServerMessage, { type: "error" }>): void {
    switch (message.type) {
      case "started":
        return this.#begin(message)
      case "ack":
        this.#input.acknowledge(message.bytes)
        this.#wakeWriter()
        break
      case "skipped":
        for (const channel of ["stdout", "stderr"] as const) {
          this.#skipped[channel] += message[channel]
          if (this.#received) this.#received[channel] += message[channel]
        }
        break
      case "show":
        this.#socket.insert({ channel: "stdout", bytes: new TextEncoder().encode(message.text) })
        break
      case "notice":
        this.#onNotice?.(message)
        break
      case "left":
        this.#putLastGaps()
        this.#socket.fail(
          new AppError("unavailable", "the sandbox has sent its client away", { reason: "left" }),
        )
        break
      case "exit": {
        const { type: _, ...exit } = message
        this.#putLastGaps()
        this.#socket.finish(exit)
        break
      }
    }
  }

  #begin({ process_id: id, is_new: isNew, from, input, written }: Started): void {
    const isFirst = this.#process === undefined
    if (!isFirst && isNew && this.#start) return this.#beganAnew()
    this.#process = { id }
    this.#onStarted()
    if (from && !this.#isWhole(from, isFirst)) return this.#fail("output")
    if (from) this.#received = { ...from }
    this.#inputBase ??= this.#start ? 0 : (input ?? 0)
    const taken = this.#start ? (input ?? 0) : input
    const sinceThen = taken === undefined ? undefined : taken - this.#inputBase
    // A sandbox that does not count each driver's input counts also that of others since then.
    if (!this.#isInputReady && !this.#sendAgain(written ?? sinceThen)) return
    this.#socket.resumed()
    this.#wakeWriter()
  }

  /** Marks what is missing before these offsets. Returns false if this side must not miss it. */
  #isWhole(from: Offsets, isFirst: boolean): boolean {
    const expected = this.#received ?? (this.#start && (this.#start.from ?? { stdout: 0, stderr: 0 }))
    if (!expected) return true
    // The caller of a first request with a key of its own may be late.
    const mayMiss = this.#isWatching || (isFirst && this.#start?.key !== undefined)
    for (const channel of ["stdout", "stderr"] as const) {
      const missing = from[channel] - expected[channel]
      if (missing <= 0) continue
      if (!mayMiss) return false
      this.#skipped[channel] += missing
    }
    return true
  }

  /** Missing bytes that no others follow come with an empty piece. */
  #putLastGaps(): void {
    for (const channel of ["stdout", "stderr"] as const) {
      const skipped = this.#skipped[channel]
      if (skipped > 0) this.#socket.insert({ channel, bytes: new Uint8Array(), skipped })
      this.#skipped[channel] = 0
    }
  }

  #fail(what: "input" | "output"): void {
    const [it, hint] = this.#start
      ? ["command", "the command runs on for a minute"]
      : ["process", "the process runs on"]
    const message = `${what} of the ${it} was lost with the connection`
    this.#socket.fail(new AppError("internal", message, { hint }))
  }

  /** A second run is no answer: what the first one has done is unknown. */
  #beganAnew(): void {
    this.signal("KILL")
    this.#socket.fail(unknownFate(new AppError("unavailable", "the sandbox does not know it any more")))
    this.#socket.close()
  }

  /** Returns false if the input is not kept any more. Input that nobody counts is not sent twice. */
  #sendAgain(offset: number | undefined): boolean {
    const isUncounted = this.#isWatching || offset === undefined
    if (isUncounted) this.#input.forget()
    const pieces = isUncounted ? [] : this.#input.from(offset)
    if (!pieces) {
      this.#fail("input")
      return false
    }
    this.#isInputReady = true
    for (const piece of pieces) this.#socket.send(piece)
    if (this.#isInputEnded) this.#socket.tell({ type: "stdin_end" })
    return true
  }
}
