/** A command in the guest, seen from the host: its output with back-pressure, its input, its end. */

import type { Exited, OutputChunk, TerminalSize } from "@bhatti/contract/guest"
import { channels } from "./frame.ts"
import { parseExited, parseStarted, requests } from "./message.ts"
import { Operation, type StreamLink } from "./operation.ts"

export class Process extends Operation<{ pid: number }, Exited, OutputChunk> {
  constructor(id: number, link: StreamLink) {
    super(id, link, {
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
