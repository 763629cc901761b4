/**
 * Programs of a guest that is played: each a generator of output, which goes on as its driver takes that. Sessions run
 * `echo`, which repeats what is typed and ends at a line `exit`, or `keys`, which tells its size and every key.
 */

import { AppError, type ErrorCode } from "@bhatti/contract/errors"
import type { OutputChunk } from "@bhatti/contract/guest"
import type { FakeProcess } from "./fake-process.ts"

/** Its output, then its exit code; one that prints nothing is only that. */
export type Program = (
  process: FakeProcess,
  args: string[],
) => AsyncGenerator<OutputChunk, number> | Promise<number>
export type SessionProgram = "echo" | "keys"

export const floodBytes = 8 * 1024 * 1024
const forever = new Promise<never>(() => undefined)
const floodPiece = new Uint8Array(32_768).map((_, index) => 97 + (index % 26))

function out(text: string, channel: OutputChunk["channel"] = "stdout"): OutputChunk {
  return { channel, bytes: Buffer.from(text) }
}

export const programs: Record<string, Program> = {
  /** With `-c` it runs the one program of a script that it knows. */
  sh(process, [, script = ""]) {
    const [name = "", ...words] = script.split(" ")
    return programs[name]?.(process, words) ?? Promise.resolve(0)
  },
  async "/bin/sh"(_, [, script]) {
    if (script === "hang") return forever
    return script === "false" ? 1 : 0
  },
  /** A login shell that runs one program. */
  "/bin/bash"(process, [, , command = ""]) {
    const [name = "", ...words] = command.split(" ")
    return programs[name]?.(process, words) ?? Promise.resolve(127)
  },
  async "/bin/sync"() {
    return 0
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
    process.end({ signal: "KILL", by: "guest" })
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

export const sessionPrograms: Record<SessionProgram, Program> = {
  async *echo(process) {
    while (!process.shown.endsWith("exit\n")) {
      const bytes = await process.read()
      // As a shell ends with its input.
      if (bytes === undefined) return 0
      yield { channel: "stdout", bytes }
    }
    return 0
  },
  /** `q` ends it with 5, `e` breaks it, `f` floods, `a` switches to another screen. */
  async *keys(process) {
    const line = (text: string) => out(`${text}\r\n`)
    for (;;) {
      await process.until(() => process.isReadable || process.news.length > 0)
      for (const text of process.news.splice(0)) yield line(text)
      if (!process.isReadable) continue
      const keys = await process.read()
      if (keys === undefined) return 0
      for (const key of keys) {
        const letter = String.fromCharCode(key)
        if (letter === "q") return 5
        if (letter === "e") process.breakDriver(new AppError("limit_exceeded", "too much is typed"))
        else if (letter === "a") yield line("\x1b[?1049h\x1b[?25l\x1b[?2004hfull screen")
        else if (letter === "f") {
          for (let left = floodBytes; left > 0; left -= floodPiece.length)
            yield { channel: "stdout", bytes: floodPiece }
          yield line("\r\nflooded")
        } else yield line(`key ${key.toString(16)}`)
      }
    }
  },
}

/** `refuse CODE WORDS` cannot be started: it is an agent of an earlier version, unless CODE is `CODE:REASON`. */
export function refusalOf([program = "", ...args]: string[]): AppError | undefined {
  if (program === "refuse") {
    const [code = "", reason] = args[0]?.split(":") ?? []
    return new AppError(code as ErrorCode, `cannot run ${args.slice(1).join(" ")}`, { reason })
  }
  if (Object.hasOwn(programs, program)) return undefined
  return new AppError("not_found", `no program named "${program}" in the sandbox`, { reason: "no_program" })
}
