/**
 * The client's end of the exec socket (`contract/exec.ts`): one command, its output as it comes, its standard input, signals.
 * At most `window` bytes are in memory in each direction: output is acknowledged when the reader asks for more, and
 * `write` waits until the daemon has acknowledged earlier input.
 */

import type { z } from "zod"
import type { Api } from "../contract/api.ts"
import { AppError, isErrorCode } from "../contract/errors.ts"
import type { ExecClientMessage, ExecServerMessage, SignalName } from "../contract/exec.ts"
import { limits } from "../contract/limits.ts"

export type ExecStreamStart = z.input<Api["execSocket"]["socket"]["start"]>
export type ExecOutput = { channel: "stdout" | "stderr"; bytes: Uint8Array<ArrayBuffer> }
export type ExecExit = Omit<Extract<ExecServerMessage, { type: "exit" }>, "type">

/** Large enough to cost little per byte, small enough that acknowledgements come evenly. */
const inputPieceBytes = 64 * 1024
const channels: Record<number, ExecOutput["channel"]> = { 1: "stdout", 2: "stderr" }

type Connection = {
  url: string
  headers: Record<string, string>
  start: ExecStreamStart
  whyRefused: () => Promise<AppError>
}

export class ExecStream {
  /** How the command ended. Rejects when it could not be run or the connection was lost. */
  readonly exit: Promise<ExecExit>

  readonly #socket: WebSocket
  readonly #window: number
  readonly #whyRefused: () => Promise<AppError>
  readonly #resolveExit: (exit: ExecExit) => void
  readonly #rejectExit: (error: unknown) => void
  #wasOpened = false
  #isEnded = false
  /** Messages from before the socket was open. */
  #unsent: string[] = []
  #queue: ExecOutput[] = []
  #queuedBytes = 0
  /** Bytes handed to the reader and not yet acknowledged. */
  #unacknowledgedOutput = 0
  #unacknowledgedInput = 0
  #wakeReader: () => void = () => {}
  #wakeWriter: () => void = () => {}

  constructor(connection: Connection) {
    const { promise, resolve, reject } = Promise.withResolvers<ExecExit>()
    this.exit = promise
    this.#resolveExit = resolve
    this.#rejectExit = reject
    // A reader still inside its loop awaits `exit` only afterwards; until then a rejection is not an unhandled one.
    promise.catch(() => undefined)
    this.#whyRefused = connection.whyRefused
    this.#window = connection.start.window ?? limits.execStreamWindowBytes
    this.#socket = new WebSocket(connection.url, { headers: connection.headers, perMessageDeflate: false })
    this.#socket.binaryType = "arraybuffer"
    this.#socket.onopen = () => {
      this.#wasOpened = true
      this.#socket.send(JSON.stringify({ ...connection.start, window: this.#window }))
      for (const message of this.#unsent) this.#socket.send(message)
      this.#unsent = []
      this.#wakeWriter()
    }
    this.#socket.onmessage = (event: MessageEvent<string | ArrayBuffer>) => this.#receive(event.data)
    this.#socket.onclose = () => void this.#closed()
  }

  /** Output in the order it came. Ends when the command has ended or failed; `exit` then says how. */
  get output(): AsyncIterableIterator<ExecOutput> {
    return this.#read()
  }

  /** Resolves when more input may be written; await it before the next. Input to a command that has ended is dropped. */
  async write(bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    for (let start = 0; start < bytes.length; start += inputPieceBytes) {
      const piece = bytes.subarray(start, start + inputPieceBytes)
      while (
        !this.#isEnded &&
        (!this.#wasOpened || this.#unacknowledgedInput + piece.length > this.#window)
      ) {
        const { promise, resolve } = Promise.withResolvers<void>()
        this.#wakeWriter = resolve
        await promise
      }
      if (this.#isEnded) return
      this.#unacknowledgedInput += piece.length
      this.#socket.send(piece)
    }
  }

  endInput(): void {
    this.#tell({ type: "stdin_end" })
  }

  signal(signal: SignalName): void {
    this.#tell({ type: "signal", signal })
  }

  resize(size: { rows: number; cols: number }): void {
    this.#tell({ type: "resize", rows: size.rows, cols: size.cols })
  }

  /** Ends the connection; a command that still runs is killed. */
  close(): void {
    this.#fail(new AppError("unavailable", "the exec stream was closed", { retryable: false }))
    this.#socket.close()
  }

  async *#read(): AsyncGenerator<ExecOutput, void, undefined> {
    for (;;) {
      const next = this.#queue.shift()
      if (next !== undefined) {
        this.#queuedBytes -= next.bytes.length
        yield next
        this.#unacknowledgedOutput += next.bytes.length
        if (this.#unacknowledgedOutput >= this.#window / 4) this.#acknowledge()
        continue
      }
      if (this.#isEnded) return
      this.#acknowledge()
      const { promise, resolve } = Promise.withResolvers<void>()
      this.#wakeReader = resolve
      await promise
    }
  }

  #acknowledge(): void {
    if (this.#unacknowledgedOutput === 0) return
    this.#tell({ type: "ack", bytes: this.#unacknowledgedOutput })
    this.#unacknowledgedOutput = 0
  }

  #tell(message: ExecClientMessage): void {
    if (this.#isEnded) return
    const text = JSON.stringify(message)
    if (this.#wasOpened) this.#socket.send(text)
    else this.#unsent.push(text)
  }

  #receive(message: string | ArrayBuffer): void {
    if (this.#isEnded) return
    if (typeof message === "string") this.#receiveMessage(JSON.parse(message) as ExecServerMessage)
    else this.#receiveOutput(new Uint8Array(message))
  }

  #receiveOutput(frame: Uint8Array<ArrayBuffer>): void {
    const channel = channels[frame[0] ?? 0]
    if (channel === undefined) return
    const bytes = frame.subarray(1)
    this.#queue.push({ channel, bytes })
    this.#queuedBytes += bytes.length
    if (this.#queuedBytes > 2 * this.#window) {
      this.#fail(new AppError("internal", "the daemon sent more output than it may"))
      this.#socket.close()
    }
    this.#wakeReader()
  }

  #receiveMessage(message: ExecServerMessage): void {
    switch (message.type) {
      case "started":
        break
      case "ack":
        this.#unacknowledgedInput -= message.bytes
        this.#wakeWriter()
        break
      case "exit": {
        const { exit_code, signal, timed_out } = message
        this.#resolveExit({ exit_code, signal, timed_out })
        this.#end()
        break
      }
      case "error":
        this.#fail(
          new AppError(isErrorCode(message.code) ? message.code : "internal", message.message, {
            ...(message.hint === null ? {} : { hint: message.hint }),
          }),
        )
        break
    }
  }

  async #closed(): Promise<void> {
    if (this.#isEnded) return
    if (!this.#wasOpened) return this.#fail(await this.#whyRefused())
    this.#fail(
      new AppError("unavailable", "the connection to the daemon was lost while the command ran", {
        retryable: false,
      }),
    )
  }

  #fail(error: AppError): void {
    this.#rejectExit(error)
    this.#end()
  }

  #end(): void {
    this.#isEnded = true
    this.#wakeReader()
    this.#wakeWriter()
  }
}
