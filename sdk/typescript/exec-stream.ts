/**
 * The client's end of the exec socket (`contract/exec.ts`): one command with streamed output, standard input and
 * signals. At most `window` bytes are in memory in each direction: `write` waits until the daemon has acknowledged
 * earlier input.
 */

import type { Api } from "@bhatti/contract/api"
import type { ExecClientMessage, ExecServerMessage, SignalName } from "@bhatti/contract/exec"
import { limits } from "@bhatti/contract/limits"
import type { z } from "zod"
import { deferred } from "./deferred.ts"
import { type Connection, type StreamOutput, StreamSocket } from "./stream-socket.ts"

export type ExecStreamStart = z.input<Api["execSocket"]["socket"]["start"]>
export type ExecExit = Omit<Extract<ExecServerMessage, { type: "exit" }>, "type">

/** Large enough to cost little per byte, small enough that acknowledgements come evenly. */
const inputPieceBytes = 64 * 1024
const channels: Record<number, StreamOutput["channel"]> = { 1: "stdout", 2: "stderr" }

export class ExecStream {
  /** The command's result. Rejects if it could not be run or the connection was lost. */
  readonly exit: Promise<ExecExit>

  readonly #socket: StreamSocket<ExecClientMessage, ExecServerMessage, ExecExit>
  readonly #window: number
  #unacknowledgedInput = 0
  #hasStarted = false
  #wakeWriter: () => void = () => {}

  constructor(connection: Connection, start: ExecStreamStart) {
    this.#window = start.window ?? limits.execStreamWindowBytes
    this.#socket = new StreamSocket({
      ...connection,
      window: this.#window,
      firstMessage: { ...start, window: this.#window },
      readFrame(frame) {
        const channel = channels[frame[0] ?? 0]
        return channel && { channel, bytes: frame.subarray(1) }
      },
      onMessage: (message) => this.#receive(message),
      onChange: () => this.#wakeWriter(),
      lostMessage: "the connection to the daemon was lost while the command ran",
    })
    this.exit = this.#socket.end
  }

  /** Output in order. Ends when the command has ended or failed; `exit` then has the result. */
  get output(): AsyncIterableIterator<StreamOutput> {
    return this.#socket.output
  }

  /** Returns whether the command has begun to run. */
  get hasStarted(): boolean {
    return this.#hasStarted
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
      this.#unacknowledgedInput += piece.length
      this.#socket.send(piece)
    }
  }

  endInput(): void {
    this.#socket.tell({ type: "stdin_end" })
  }

  signal(signal: SignalName): void {
    this.#socket.tell({ type: "signal", signal })
  }

  resize(size: { rows: number; cols: number }): void {
    this.#socket.tell({ type: "resize", rows: size.rows, cols: size.cols })
  }

  /** Closes the connection; a command that still runs is killed. */
  close(): void {
    this.#socket.close()
  }

  #mayWrite(piece: Uint8Array): boolean {
    return this.#socket.isOpen && this.#unacknowledgedInput + piece.length <= this.#window
  }

  #receive(message: Exclude<ExecServerMessage, { type: "error" }>): void {
    switch (message.type) {
      case "started":
        this.#hasStarted = true
        break
      case "ack":
        this.#unacknowledgedInput -= message.bytes
        this.#wakeWriter()
        break
      case "exit": {
        const { type: _, ...exit } = message
        this.#socket.finish(exit)
        break
      }
    }
  }
}
