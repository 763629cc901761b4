/**
 * A process of a guest that is played: its program, all of its output, its clients and its end. A test can read
 * the input and signals that it has sent.
 */

import type { AppError } from "@bhatti/contract/errors"
import type {
  OutputChunk,
  ProcessAttach,
  ProcessAttached,
  ProcessEnd,
  ProcessOutcome,
  ProcessRecord,
  ProcessSignal,
  ProcessStart,
  StreamOffsets,
  TerminalSize,
} from "@bhatti/contract/guest"
import type { GuestProcess } from "../../src/core/host.ts"
import type { Program } from "./fake-programs.ts"

const signalNumbers: Record<string, number> = { HUP: 1, INT: 2, QUIT: 3, KILL: 9, TERM: 15 }
/** The program waits when its driver is further behind. */
const lagBytesMax = 64 * 1024

export class FakeProcess {
  readonly id: string
  readonly command: ProcessStart & { argv: string[] }
  readonly ended: Promise<ProcessEnd>
  readonly signals: string[] = []
  readonly sizes: TerminalSize[] = []
  /** For programs that wait for their test. */
  readonly released = Promise.withResolvers<void>()
  /** Lines that a session's program is about to print. */
  readonly news: string[] = []
  readonly log: OutputChunk[] = []
  readonly watchers = new Set<FakeClient>()
  driver: FakeClient | undefined
  /** True if a client sees the earlier output. */
  isReplayed = true
  inputBytes = 0
  /** By key or name of the driver. */
  readonly written = new Map<string, number>()
  /** Never takes what is typed from outside. */
  isInputStuck = false
  closedInputs = 0
  /** Output before it is not kept. */
  firstKept: StreamOffsets = { stdout: 0, stderr: 0 }
  end_: ProcessEnd | undefined
  readonly #ended = Promise.withResolvers<ProcessEnd>()
  readonly #createdUnixMs = Date.now()
  readonly #caught = new Set<string>()
  readonly #input: Uint8Array[] = []
  readonly #timers: Timer[] = []
  #grace: Timer | undefined
  #program: Program | undefined
  #isInputEnded = false
  #changed = Promise.withResolvers<void>()

  constructor(id: string, command: ProcessStart & { argv: string[] }) {
    this.id = id
    this.command = command
    this.ended = this.#ended.promise
    const { timeoutMs } = command
    if (timeoutMs !== undefined)
      this.#timers.push(setTimeout(() => this.end({ signal: "KILL", reason: "time_limit" }), timeoutMs))
  }

  run(program: Program): this {
    this.#program = program
    this.#run(program).catch((error: unknown) => {
      throw error
    })
    return this
  }

  /** The same process in a copy of the guest's memory, without its clients; its program begins again. */
  copy(): FakeProcess {
    const copy = new FakeProcess(this.id, this.command)
    copy.log.push(...this.log)
    copy.isReplayed = this.isReplayed
    if (this.end_) copy.end(this.end_)
    else if (this.#program) copy.run(this.#program)
    return copy
  }

  get shown(): string {
    return Buffer.concat(this.log.map(({ bytes }) => bytes)).toString()
  }

  attach(options: Attaching, isNew = false): FakeClient {
    const client = new FakeClient(this, options, isNew)
    if (options.mode === "watch") {
      this.watchers.add(client)
      return client
    }
    this.driver?.finish({ state: "taken_over" })
    this.driver = client
    clearTimeout(this.#grace)
    const { tty } = options
    if (tty) this.news.push(`size ${tty.rows}x${tty.cols} ${this.command.tty?.term ?? "xterm"}`)
    this.tell()
    return client
  }

  leave(client: FakeClient): void {
    this.watchers.delete(client)
    if (this.driver !== client) return
    this.driver = undefined
    const { onDisconnect, graceMs = 0 } = this.command
    const leave = () => {
      this.#grace = undefined
      if (onDisconnect === "kill") this.end({ signal: "KILL", reason: "disconnected" })
      this.tell()
    }
    if (graceMs === 0) return leave()
    this.#grace = setTimeout(leave, graceMs)
    this.#timers.push(this.#grace)
  }

  breakDriver(error: AppError): void {
    this.driver?.lose(error)
  }

  /** The next of its input; undefined at the end. */
  async read(): Promise<Uint8Array | undefined> {
    await this.until(() => this.isReadable)
    return this.#input.shift()
  }

  get isReadable(): boolean {
    return this.#input.length > 0 || this.#isInputEnded
  }

  catches(...signals: string[]): void {
    for (const signal of signals) this.#caught.add(signal)
  }

  async until(isMet: () => boolean): Promise<void> {
    while (!isMet()) await this.#changed.promise
  }

  type(bytes: Uint8Array, writer?: string): void {
    if (this.end_) return
    this.inputBytes += bytes.length
    if (writer !== undefined) this.written.set(writer, (this.written.get(writer) ?? 0) + bytes.length)
    this.#input.push(bytes.slice())
    this.tell()
  }

  endInput(): void {
    this.#isInputEnded = true
    this.tell()
  }

  signal({ signal, by = "guest" }: ProcessSignal): void {
    this.signals.push(signal)
    if (!this.#caught.has(signal) || signal === "KILL") this.end({ signal, by })
    this.tell()
  }

  resize({ rows, cols }: TerminalSize): void {
    this.sizes.push({ rows, cols })
    this.news.push(`resized ${rows}x${cols}`)
    this.tell()
  }

  end({ exitCode, signal = null, reason, by = null }: Partial<ProcessEnd>): void {
    if (this.end_) return
    const code = exitCode ?? 128 + (signalNumbers[signal ?? ""] ?? 15)
    const why = reason ?? (signal === null ? "exited" : "signal")
    this.end_ = { exitCode: code, signal, reason: why, by, detail: null }
    for (const timer of this.#timers) clearTimeout(timer)
    this.#ended.resolve(this.end_)
    for (const client of [this.driver, ...this.watchers]) client?.finish({ state: "ended", ended: this.end_ })
    this.tell()
  }

  record(): ProcessRecord {
    const { name = null, tty, onDisconnect, argv, user = "lohar", cwd = "/workspace" } = this.command
    const { stdout, stderr } = this.totals()
    return {
      ...{ id: this.id, name, pid: 42, argv, user, cwd, tty: tty !== undefined, onDisconnect },
      ended: this.end_ ?? null,
      driven: this.driver !== undefined && !this.end_,
      watchers: this.watchers.size,
      inputOpen: this.command.stdin === true && !this.end_ && !this.#isInputEnded,
      createdUnixMs: this.#createdUnixMs,
      endedUnixMs: this.end_ ? this.#createdUnixMs + 1 : null,
      output: {
        stdout: { first: this.firstKept.stdout, total: stdout },
        stderr: { first: this.firstKept.stderr, total: stderr },
      },
    }
  }

  totals(chunks = this.log): StreamOffsets {
    const total = { stdout: 0, stderr: 0 }
    for (const { channel, bytes } of chunks) total[channel] += bytes.length
    return total
  }

  tell(): void {
    this.#changed.resolve()
    this.#changed = Promise.withResolvers()
  }

  async #run(program: Program): Promise<void> {
    const run = program(this, this.command.argv.slice(1))
    const ended = this.ended.then(() => undefined)
    if (run instanceof Promise) {
      const code = await Promise.race([run, ended])
      if (code !== undefined) this.end({ exitCode: code })
      return
    }
    for (;;) {
      const step = await Promise.race([run.next(), ended])
      if (step === undefined) return
      if (step.done) return this.end({ exitCode: step.value })
      this.log.push(step.value)
      this.tell()
      await Promise.race([this.until(() => !this.#isHeld), ended])
    }
  }

  get #isHeld(): boolean {
    return this.driver ? this.driver.lagBytes > lagBytesMax : this.#grace !== undefined
  }
}

/** A client that starts it goes by its key. */
type Attaching = Omit<ProcessAttach, "process"> & { key?: string }

/** A client's view of it. */
export class FakeClient implements GuestProcess {
  readonly attached: Promise<ProcessAttached>
  readonly result: Promise<ProcessOutcome>
  readonly output: AsyncIterable<OutputChunk>
  readonly #process: FakeProcess
  readonly #result = Promise.withResolvers<ProcessOutcome>()
  /** Bytes of each channel that are still to be passed over. */
  readonly #passed: StreamOffsets
  readonly #writer: string | undefined
  #at = 0
  #isOver = false

  constructor(process: FakeProcess, options: Attaching, isNew: boolean) {
    this.#process = process
    const writer = options.writer ?? options.key
    this.#writer = writer
    const asked = options.from ?? { stdout: 0, stderr: 0 }
    const { firstKept } = process
    const from = {
      stdout: Math.max(asked.stdout, firstKept.stdout),
      stderr: Math.max(asked.stderr, firstKept.stderr),
    }
    this.#passed = { ...from }
    if (!process.isReplayed) this.#at = process.log.length
    const { id, command } = process
    const name = command.name ?? null
    const written = writer === undefined ? undefined : (process.written.get(writer) ?? 0)
    this.attached = Promise.resolve({
      ...{ id, name, pid: 42, isNew, from },
      ...{ input: process.inputBytes, written },
    })
    this.result = this.#result.promise
    this.result.catch(() => undefined)
    this.output = this.#output()
    if (process.end_) this.finish({ state: "ended", ended: process.end_ })
    else if (options.follow === false) this.finish({ state: "left" })
  }

  get lagBytes(): number {
    return this.#process.log.slice(this.#at).reduce((sum, { bytes }) => sum + bytes.length, 0)
  }

  async *#output(): AsyncGenerator<OutputChunk> {
    for (;;) {
      const chunk = this.#process.log[this.#at]
      if (chunk !== undefined) {
        this.#at++
        this.#process.tell()
        const passed = Math.min(this.#passed[chunk.channel], chunk.bytes.length)
        this.#passed[chunk.channel] -= passed
        if (passed < chunk.bytes.length) yield { ...chunk, bytes: chunk.bytes.subarray(passed) }
      } else if (this.#isOver) {
        await this.result.catch((error: unknown) => {
          throw error
        })
        return
      } else {
        await this.#process.until(() => this.#isOver || this.#process.log[this.#at] !== undefined)
      }
    }
  }

  finish(outcome: ProcessOutcome): void {
    this.#isOver = true
    this.#result.resolve(outcome)
    this.#process.tell()
  }

  /** The channel to its guest is lost. */
  lose(error: AppError): void {
    this.#isOver = true
    this.#result.reject(error)
    this.#process.leave(this)
    this.#process.tell()
  }

  async write(bytes: Uint8Array): Promise<void> {
    if (!this.#isOver) this.#process.type(bytes, this.#writer)
  }

  endInput(): void {
    if (!this.#isOver) this.#process.endInput()
  }

  signal(signal: ProcessSignal): void {
    if (!this.#isOver) this.#process.signal(signal)
  }

  resize(size: TerminalSize): void {
    if (!this.#isOver) this.#process.resize(size)
  }

  kill(by: string): void {
    if (!this.#isOver) this.#process.signal({ signal: "KILL", by })
  }

  leave(): void {
    if (this.#isOver) return
    this.#process.leave(this)
    this.finish({ state: "left" })
  }
}

/** A client that was refused, or reads what a test says. */
export function playedClient(
  output: AsyncIterable<Uint8Array>,
  result: Promise<ProcessOutcome>,
): GuestProcess {
  result.catch(() => undefined)
  const attached = result.then(() => ({
    ...{ id: "s1", name: null, pid: 1, isNew: false, input: 0, written: undefined },
    from: { stdout: 0, stderr: 0 },
  }))
  attached.catch(() => undefined)
  return {
    attached,
    output: (async function* () {
      for await (const bytes of output) yield { channel: "stdout" as const, bytes }
    })(),
    result,
    write: async () => undefined,
    endInput() {},
    signal() {},
    resize() {},
    kill() {},
    leave() {},
  }
}
