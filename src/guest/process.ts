/** A command in the guest, seen from the host: its output with back-pressure, its input, its end. */

import { type Channel, Exchange } from "./exchange.ts"
import { channels } from "./frame.ts"
import { type Exited, parseExited, parseStarted, requests, type TerminalSize } from "./message.ts"

export type OutputChunk = { channel: "stdout" | "stderr"; bytes: Uint8Array }

export type GuestProcess = {
  /** Resolves once the command runs. */
  readonly started: Promise<{ pid: number }>
  /** The command's output. The guest may send more only as chunks are taken; ending the iteration discards the rest. */
  readonly output: AsyncIterable<OutputChunk>
  /** The command's end; its output may still be unread. Rejects with an `AppError`. */
  readonly result: Promise<Exited>
  /** Resolves when the bytes have been sent. Input of a command that has ended is dropped. */
  write(bytes: Uint8Array): Promise<void>
  endInput(): void
  signal(name: string): void
  resize(size: TerminalSize): void
  /** Kills the command and everything it started; `result` settles when that is done. */
  kill(): void
}

export class Process extends Exchange<{ pid: number }, Exited, OutputChunk> implements GuestProcess {
  constructor(id: number, channel: Channel) {
    super(id, channel, {
      parseFirst: parseStarted,
      parseAnswer: parseExited,
      toChunk: (from, bytes) => ({ channel: from === channels.stdout ? "stdout" : "stderr", bytes }),
    })
  }

  get started(): Promise<{ pid: number }> {
    return this.first
  }

  signal(name: string): void {
    this.message(requests.signal(name))
  }

  resize(size: TerminalSize): void {
    this.message(requests.resize(size))
  }

  kill(): void {
    this.close()
  }
}
