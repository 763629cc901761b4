/** A command in the guest, seen from the host: its output with back-pressure, its input, its end. */

import type { Exited, OutputChunk, TerminalSize } from "@bhatti/contract/guest"
import { type Channel, Exchange } from "./exchange.ts"
import { channels } from "./frame.ts"
import { parseExited, parseStarted, requests } from "./message.ts"

export class Process extends Exchange<{ pid: number }, Exited, OutputChunk> {
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
