/**
 * Commands of a guest that is played: a few programs, each a generator of output, which goes on as its reader takes
 * that. What a test sent to a command can be read from it.
 */

import { AppError, type ErrorCode } from "@bhatti/contract/errors"
import type { GuestCommand, OutputChunk } from "@bhatti/contract/guest"
import type { GuestProcess } from "../../src/core/host.ts"

type End = { exitCode: number; signal: string | null }
/** Its output, then its exit code; one that prints nothing is only that. */
type Program = (process: FakeProcess, args: string[]) => AsyncGenerator<OutputChunk, number> | Promise<number>

const signalNumbers: Record<string, number> = { HUP: 1, INT: 2, QUIT: 3, KILL: 9, TERM: 15 }
const forever = new Promise<never>(() => undefined)
const floodPiece = new Uint8Array(32_768).map((_, index) => 97 + (index % 26))

function out(text: string, channel: OutputChunk["channel"] = "stdout"): OutputChunk {
  return { channel, bytes: Buffer.from(text) }
}

const programs: Record<string, Program> = {
  async sh() {
    return 0
  },
  async "/bin/sh"(_, [, script]) {
    return script === "false" ? 1 : 0
  },
  async true() {
    return 0
  },
  async *echo(_, args) {
    yield out(`${args.join(" ")}\n`)
    return 0
  },
  /** A line on each channel. */
  async *warn() {
    yield out("out\n")
    yield out("err\n", "stderr")
    return 0
  },
  async *both() {
    yield out("out 1\n")
    yield out("err 1\n", "stderr")
    yield out("out 2\n")
    return 0
  },
  async *env({ command }) {
    for (const [key, value] of Object.entries(command.env ?? {})) yield out(`${key}=${value}\n`)
    return 0
  },
  async exit(_, [code]) {
    return Number(code)
  },
  async killed(process) {
    process.kill()
    return 0
  },
  async *cat(process) {
    if (!process.command.stdin) return 0
    for (;;) {
      const bytes = await process.read()
      if (bytes === undefined) return 0
      yield { channel: "stdout", bytes }
    }
  },
  /** Tells how many bytes it was given. */
  async *count(process) {
    while ((await process.read()) !== undefined);
    yield out(`${process.inputBytes}\n`)
    return 0
  },
  async *flood(_, [bytes]) {
    for (let left = Number(bytes); left > 0; left -= floodPiece.length)
      yield { channel: "stdout", bytes: left < floodPiece.length ? floodPiece.subarray(0, left) : floodPiece }
    return 0
  },
  /** Until a signal ends it. */
  sleep: () => forever,
  async *ready() {
    yield out("ready\n")
    return forever
  },
  /** A line now, the next when the test says so. */
  async *slow(process) {
    yield out("first\n")
    await process.released.promise
    yield out("second\n")
    return 0
  },
  /** Only SIGKILL ends it. */
  async *stubborn(process) {
    process.catches("INT", "TERM")
    yield out("ready\n")
    return forever
  },
  async *polite(process) {
    process.catches("INT")
    yield out("ready\n")
    await process.until(() => process.signals.includes("INT"))
    yield out("cleaning up\n")
    return 7
  },
  /** Ends after a signal, when the test says so. */
  async *tidy(process) {
    process.catches("INT", "TERM")
    yield out("ready\n")
    await process.until(() => process.signals.length > 0)
    await process.released.promise
    return 7
  },
  /** Tells keys as hexadecimal and every size of its terminal; `q` ends it. */
  async *terminal(process) {
    const { tty } = process.command
    yield out(`size ${tty?.rows}x${tty?.cols} ${tty?.term}\r\n`)
    let sizesTold = 0
    const keys: number[] = []
    for (;;) {
      const size = process.sizes[sizesTold]
      const key = keys.shift()
      if (size !== undefined) {
        sizesTold++
        yield out(`resized ${size.rows}x${size.cols}\r\n`)
        if (key !== undefined) keys.unshift(key)
      } else if (key !== undefined) {
        yield out(`key ${key.toString(16)}\r\n`)
        if (key === 0x71) return 5
      } else {
        await process.until(() => process.isReadable || process.sizes.length > sizesTold)
        if (process.isReadable) keys.push(...((await process.read()) ?? []))
      }
    }
  },
  /** Switches the terminal to another screen, and goes on. */
  async *alternate() {
    yield out("\x1b[?1049h\x1b[?25l")
    return forever
  },
}

/** `refuse CODE WORDS` cannot be started: it is an agent of an earlier version, unless CODE is `CODE:REASON`. */
function refusalOf([program = "", ...args]: string[]): AppError | undefined {
  if (program === "refuse") {
    const [code = "", reason] = args[0]?.split(":") ?? []
    return new AppError(code as ErrorCode, `cannot run ${args.slice(1).join(" ")}`, { reason })
  }
  if (Object.hasOwn(programs, program)) return undefined
  return new AppError("not_found", `no program named "${program}" in the sandbox`, { reason: "no_program" })
}

export class FakeProcess implements GuestProcess {
  readonly command: GuestCommand
  readonly started: Promise<{ pid: number }>
  readonly result: Promise<End>
  readonly output: AsyncIterable<OutputChunk>
  readonly signals: string[] = []
  readonly sizes: { rows: number; cols: number }[] = []
  /** For programs that wait for their test. */
  readonly released = Promise.withResolvers<void>()
  inputBytes = 0
  isEnded = false
  readonly #result = Promise.withResolvers<End>()
  readonly #caught = new Set<string>()
  readonly #input: Uint8Array[] = []
  #isInputEnded = false
  #changed = Promise.withResolvers<void>()

  /** `refused` says why the guest does not even look for its program. */
  constructor(command: GuestCommand, refused?: AppError) {
    this.command = command
    this.result = this.#result.promise
    const tell = () => {
      this.isEnded = true
      this.#tell()
    }
    this.result.then(tell, tell)
    const refusal = refused ?? refusalOf(command.argv)
    this.started = refusal ? Promise.reject(refusal) : Promise.resolve({ pid: 42 })
    this.started.catch(() => undefined)
    if (refusal) this.#result.reject(refusal)
    this.output = refusal ? (async function* () {})() : this.#run()
  }

  async *#run(): AsyncGenerator<OutputChunk> {
    const [program = "", ...args] = this.command.argv
    const run = programs[program]?.(this, args)
    const ended = this.result.then(
      () => undefined,
      () => undefined,
    )
    if (run instanceof Promise) {
      const code = await Promise.race([run, ended])
      return code === undefined ? undefined : this.#end(code, null)
    }
    while (run !== undefined) {
      const step = await Promise.race([run.next(), ended])
      if (step === undefined) return
      if (step.done) return this.#end(step.value, null)
      yield step.value
    }
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

  /** Never returns when it has ended before. */
  async until(isMet: () => boolean): Promise<void> {
    while (!isMet()) await this.#changed.promise
  }

  async write(bytes: Uint8Array): Promise<void> {
    if (this.isEnded) return
    this.inputBytes += bytes.length
    this.#input.push(bytes.slice())
    this.#tell()
  }

  endInput(): void {
    this.#isInputEnded = true
    this.#tell()
  }

  signal(name: string): void {
    this.signals.push(name)
    if (!this.#caught.has(name)) this.#end(128 + (signalNumbers[name] ?? 15), name)
    this.#tell()
  }

  resize({ rows, cols }: { rows: number; cols: number }): void {
    this.sizes.push({ rows, cols })
    this.#tell()
  }

  kill(): void {
    this.#end(137, "KILL")
  }

  /** The channel to its guest is lost. */
  lose(error: AppError): void {
    this.#result.reject(error)
  }

  #end(exitCode: number, signal: string | null): void {
    this.#result.resolve({ exitCode, signal })
  }

  #tell(): void {
    this.#changed.resolve()
    this.#changed = Promise.withResolvers()
  }
}
