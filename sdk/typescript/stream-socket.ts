/**
 * The common part of the exec and the shell socket: messages as JSON text, output as binary frames, one end. Output is
 * acknowledged when the reader asks for more, so that at most `window` bytes of it are in memory.
 */

import { AppError, isErrorCode, type Subject } from "@bhatti/contract/errors"
import { deferred } from "./deferred.ts"
import type { Socket } from "./socket.ts"

export type StreamOutput = { channel: "stdout" | "stderr"; bytes: Uint8Array<ArrayBuffer> }

/** Both sockets' servers send this message; it is handled here. */
type Failure = {
  type: "error"
  code: string
  message: string
  hint: string | null
  subject?: { kind: string } | undefined
  reason?: string | undefined
}

export type Connection = {
  open: () => Socket | Promise<Socket>
  /** Finds the reason for a refused WebSocket, which hides the daemon's answer. */
  whyRefused: () => Promise<AppError>
}

type Plan<ServerMessage> = Connection & {
  window: number
  firstMessage?: unknown
  /** Returns a binary frame's content, or undefined to ignore it. */
  readFrame: (frame: Uint8Array<ArrayBuffer>) => StreamOutput | undefined
  onMessage: (message: Exclude<ServerMessage, Failure>) => void
  /** Called when the socket has opened or ended, so that waiting senders check again. */
  onChange?: () => void
  /** Message of the error if the connection is lost. */
  lostMessage: string
}

export class StreamSocket<ClientMessage, ServerMessage extends { type: string }, End> {
  /** Rejects if the operation failed or the connection was lost. */
  readonly end: Promise<End>
  /** Resolves when nothing is in flight any more. */
  readonly closed: Promise<void>
  isOpen = false
  isEnded = false
  #isLost = false

  readonly #plan: Plan<ServerMessage>
  #socket: Socket | undefined
  readonly #resolveEnd: (end: End) => void
  readonly #rejectEnd: (error: unknown) => void
  /** Queued before the socket was open. */
  #unsent: (string | Uint8Array<ArrayBuffer>)[] = []
  #queue: StreamOutput[] = []
  #queuedBytes = 0
  /** Bytes passed to the reader and not yet acknowledged. */
  #unacknowledged = 0
  #wakeReader: () => void = () => {}

  constructor(plan: Plan<ServerMessage>) {
    const { promise, resolve, reject } = deferred<End>()
    this.end = promise
    this.#resolveEnd = resolve
    this.#rejectEnd = reject
    // Marks the promise as handled: a reader inside its loop awaits `end` only afterwards.
    promise.catch(() => undefined)
    this.#plan = plan
    const closing = deferred<void>()
    this.closed = closing.promise
    this.#open(() => closing.resolve()).catch((error: unknown) => {
      this.fail(error)
      closing.resolve()
    })
  }

  /** Output in order. Ends with the socket; `end` then has the result. */
  get output(): AsyncIterableIterator<StreamOutput> {
    return this.#read()
  }

  tell(message: ClientMessage): void {
    this.send(JSON.stringify(message))
  }

  /** Queues content until the socket is open. */
  send(content: string | Uint8Array<ArrayBuffer>): void {
    if (this.isEnded) return
    if (this.isOpen) this.#socket?.send(content)
    else this.#unsent.push(content)
  }

  finish(end: End): void {
    this.#resolveEnd(end)
    this.#stop()
  }

  fail(error: unknown): void {
    this.#rejectEnd(error)
    this.#stop()
  }

  close(): void {
    this.fail(new AppError("unavailable", "the stream was closed", { retryable: false }))
    this.#socket?.close()
  }

  async *#read(): AsyncGenerator<StreamOutput, void, undefined> {
    for (;;) {
      const next = this.#queue.shift()
      if (next !== undefined) {
        this.#queuedBytes -= next.bytes.length
        yield next
        this.#unacknowledged += next.bytes.length
        // Acknowledges every quarter of the window: doing so for every message would cost the daemon more than the
        // output.
        if (this.#unacknowledged >= this.#plan.window / 4) this.#acknowledge()
        continue
      }
      if (this.isEnded) return
      const { promise, resolve } = deferred<void>()
      this.#wakeReader = resolve
      await promise
    }
  }

  #acknowledge(): void {
    if (this.#unacknowledged === 0) return
    this.send(JSON.stringify({ type: "ack", bytes: this.#unacknowledged }))
    this.#unacknowledged = 0
  }

  async #open(onClosed: () => void): Promise<void> {
    const opening = this.#plan.open()
    const socket = opening instanceof Promise ? await opening : opening
    this.#socket = socket
    socket.binaryType = "arraybuffer"
    socket.addEventListener("open", () => this.#opened(socket))
    socket.addEventListener("message", (event) =>
      this.#receive((event as MessageEvent<string | ArrayBuffer>).data),
    )
    const lose = () => {
      onClosed()
      this.#lost().catch((error: unknown) => this.fail(error))
    }
    socket.addEventListener("close", lose)
    // Node.js 20 reports a refused socket by this event alone.
    socket.addEventListener("error", () => this.isOpen || lose())
    if (this.isEnded) socket.close()
  }

  #opened(socket: Socket): void {
    this.isOpen = true
    if (this.#plan.firstMessage !== undefined) socket.send(JSON.stringify(this.#plan.firstMessage))
    for (const content of this.#unsent) socket.send(content)
    this.#unsent = []
    this.#plan.onChange?.()
  }

  #receive(content: string | ArrayBuffer): void {
    if (this.isEnded) return
    if (typeof content === "string") return this.#receiveMessage(content)
    const output = this.#plan.readFrame(new Uint8Array(content))
    if (output === undefined) return
    this.#queue.push(output)
    this.#queuedBytes += output.bytes.length
    if (this.#queuedBytes > 2 * this.#plan.window) this.#giveUp("the daemon sent more output than it may")
    this.#wakeReader()
  }

  #receiveMessage(text: string): void {
    let message: ServerMessage | Failure
    try {
      message = JSON.parse(text)
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error
      return this.#giveUp("the daemon sent something that is not a message", error)
    }
    if (!isFailure(message)) return this.#plan.onMessage(message as Exclude<ServerMessage, Failure>)
    this.fail(
      new AppError(isErrorCode(message.code) ? message.code : "internal", message.message, {
        hint: message.hint ?? undefined,
        subject: message.subject as Subject | undefined,
        reason: message.reason,
      }),
    )
  }

  #giveUp(message: string, cause?: unknown): void {
    this.fail(new AppError("internal", message, { cause, hint: "is it a bhatti daemon of this version?" }))
    this.#socket?.close()
  }

  async #lost(): Promise<void> {
    if (this.isEnded || this.#isLost) return
    this.#isLost = true
    if (!this.isOpen) return this.fail(await this.#plan.whyRefused())
    this.fail(new AppError("unavailable", this.#plan.lostMessage, { retryable: false }))
  }

  #stop(): void {
    this.isEnded = true
    this.#wakeReader()
    this.#plan.onChange?.()
  }
}

function isFailure(message: { type: string }): message is Failure {
  return message.type === "error"
}
