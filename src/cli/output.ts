/**
 * Results on standard output, messages on standard error. Neither uses `process.stdout`, which takes longer to load
 * (14 ms) than all the rest of a command.
 */

import { AppError } from "@bhatti/contract/errors"
import { errorCodeOf } from "../lib/error-code.ts"

export type Channel = "stdout" | "stderr"

/** A standard output stream. `write` resolves when the bytes have left, so awaiting it gives back-pressure. */
export class Sink {
  readonly #fd: 1 | 2
  #opened: Promise<(bytes: Uint8Array<ArrayBuffer>) => Promise<void>> | undefined

  constructor(channel: Channel) {
    this.#fd = channel === "stdout" ? 1 : 2
  }

  async write(bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    if (bytes.length === 0) return
    this.#opened ??= this.#open()
    try {
      const put = await this.#opened
      await put(bytes)
    } catch (error) {
      if (isBrokenPipe(error)) throw error
      throw new AppError(
        "unavailable",
        `cannot write to standard ${this.#fd === 1 ? "output" : "error"} (${errorCodeOf(error)})`,
        {
          cause: error,
        },
      )
    }
  }

  /** Starts finding out the stream's kind while other work is waited for. */
  prepare(): void {
    this.#opened ??= this.#open()
  }

  async #open(): Promise<(bytes: Uint8Array<ArrayBuffer>) => Promise<void>> {
    const file = this.#fd === 1 ? Bun.stdout : Bun.stderr
    const isPipe = await isStream(this.#fd)
    // A writer would leave a pipe non-blocking for every other process that holds it, and they would lose output.
    if (isPipe)
      return async (bytes) => {
        // Bun writes plain bytes at once, and a full pipe would block the whole process, signals included.
        for (let rest = bytes; rest.length > 0; )
          rest = rest.subarray(await Bun.write(file, new Blob([rest])))
      }
    // Bun.write reserves space for a file it does not know to be in append mode, and so puts holes into `>> file`.
    const writer = file.writer()
    return async (bytes) => {
      await writer.write(bytes)
      await writer.flush()
    }
  }

  async isTerminal(): Promise<boolean> {
    return isTerminal(this.#fd)
  }
}

async function isStream(fd: number): Promise<boolean> {
  const stat = await Bun.file(fd).stat()
  return stat.isFIFO() || stat.isSocket()
}

/** Checks the kind of file first: loading node:tty costs 4 ms, which only a terminal needs. */
export async function isTerminal(fd: number): Promise<boolean> {
  const stat = await Bun.file(fd).stat()
  if (!stat.isCharacterDevice()) return false
  const { isatty } = await import("node:tty")
  return isatty(fd)
}

export class Output {
  readonly stdout = new Sink("stdout")
  readonly stderr = new Sink("stderr")
  readonly #encoder = new TextEncoder()

  /** Writes one line of the result. */
  async result(line: string): Promise<void> {
    await this.stdout.write(this.#encoder.encode(`${line}\n`))
  }

  /** Writes one line for the person at the terminal. */
  async talk(line: string): Promise<void> {
    await this.stderr.write(this.#encoder.encode(`${line}\n`))
  }

  /** Hints that would only disturb a script. */
  async hint(line: string): Promise<void> {
    if (await this.stdout.isTerminal()) await this.talk(line)
  }

  /** The API's reply unchanged: indented at a terminal, one line in a pipe. */
  async json(reply: unknown): Promise<void> {
    await this.result(JSON.stringify(reply, null, (await this.stdout.isTerminal()) ? 2 : 0))
  }

  async table(header: readonly string[], rows: readonly (readonly string[])[]): Promise<void> {
    await this.result(alignColumns([header, ...rows]).join("\n"))
  }
}

/** Pads every column but the last to its widest cell. */
export function alignColumns(rows: readonly (readonly string[])[], gap = 2): string[] {
  const widths: number[] = []
  for (const row of rows)
    for (const [column, cell] of row.entries())
      widths[column] = Math.max(widths[column] ?? 0, Bun.stringWidth(cell))
  return rows.map((row) =>
    row
      .map((cell, column) =>
        column === row.length - 1
          ? cell
          : cell + " ".repeat((widths[column] ?? 0) - Bun.stringWidth(cell) + gap),
      )
      .join(""),
  )
}

/** The reader of our output has gone, as in `| head`. */
export function isBrokenPipe(error: unknown): boolean {
  return errorCodeOf(error) === "EPIPE"
}
