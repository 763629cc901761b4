/**
 * The common part of the exec and the shell socket: messages as JSON text, output as binary frames, one end. Output is
 * acknowledged when the reader asks for more, so that at most `window` bytes of it are in memory.
 */

import { AppError, isErrorCode, type Subject } from "@bhatti/contract/errors"
import { deferred } from "./deferred.ts"
import { Attempts, isLossToRetry, type Reconnection, unknownFate } from "./reconnection.ts"
import type { Socket } from "./socket.ts"

/** `skipped` bytes of the channel, which a slow watcher has missed, come before these. */
export type StreamOutput = {
  channel: "stdout" | "stderr"
  bytes: Uint8Array<ArrayBuffer>
  skipped?: number
}

/** Both sockets' servers send this message; it is handled here. */
type Failure = {
  type: "error"
  code: string
  message: string
  hint: string | null
  subject?: { kind: string } | undefined
  reason?: string | undefined
  retryable?: boolean | undefined
}

export type Connection = {
  open: () => Socket | Promise<Socket>
  /** Finds the reason for a refused WebSocket, which hides the daemon's answer. */
  whyRefused: () => Promise<AppError>
}

type Plan<ServerMessage> = Connection & {
  window: number
  /** Sent on each connection, with the window that is left on it. */
  firstMessage?: (window: number) => unknown
  /** Returns a binary frame's content, or undefined to ignore it. */
  readFrame: (frame: Uint8Array<ArrayBuffer>) => StreamOutput | undefined
  onMessage: (message: Exclude<ServerMessage, Failure>) => void
  /** Called when the socket has opened or ended, so that waiting senders check again. */
  onChange?: () => void
  /** Message of the error if the connection is lost. */
  lostMessage: string
  /** Without it a lost connection is the end. */
  reconnection?: Reconnection
  /** Called at a loss. Returns whether another connection finds the same operation. */
  mayReconnect?: () => boolean
  /** Returns true if another attempt, which differs from the refused one, is worth it. */
  onRefused?: (error: AppError) => Promise<boolean>
}

const windowBytesMin = 65_536

export class StreamSocket<ClientMessage, ServerMessage extends { type: string }, End> {
  /** Rejects if the operation failed or the connection was lost. */
  readonly end: Promise<End>
  /** Resolves when nothing is in flight any more. */
  readonly closed: Promise<void>
  isOpen = false
  isEnded = false
  readonly #onClosed: () => void

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
  /** Bytes that the connection's window has more than there was room for; they are not acknowledged. */
  #excess = 0
  readonly #attempts: Attempts
  #wakeReader: () => void = () => {}

  constructor(plan: Plan<ServerMessage>) {
    const { promise, resolve, reject } = deferred<End>()
    this.end = promise
    this.#resolveEnd = resolve
    this.#rejectEnd = reject
    // Marks the promise as handled: a reader inside its loop awaits `end` only afterwards.
    promise.catch(() => undefined)
    this.#plan = plan
    this.#attempts = new Attempts(plan.reconnection ?? { forSec: 0 })
    const closing = deferred<void>()
    this.closed = closing.promise
    this.#onClosed = () => closing.resolve()
    this.#open().catch((error: unknown) => this.#failed(error))
  }

  get isLost(): boolean {
    return this.#attempts.isLost && !this.isEnded
  }

  /** The operation goes on over another connection. */
  resumed(): void {
    this.#attempts.succeeded()
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
    if (this.#socket) this.#socket.close()
    else this.#onClosed()
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
    const bytes = this.#unacknowledged - this.#excess
    this.#excess = Math.max(0, -bytes)
    this.#unacknowledged = 0
    // The next connection's window accounts for what is unacknowledged on a lost one.
    if (bytes > 0 && this.isOpen) this.send(JSON.stringify({ type: "ack", bytes }))
  }

  async #open(): Promise<void> {
    const opening = this.#plan.open()
    const socket = opening instanceof Promise ? await opening : opening
    this.#socket = socket
    socket.binaryType = "arraybuffer"
    const isCurrent = () => this.#socket === socket
    socket.addEventListener("open", () => this.#opened(socket))
    socket.addEventListener("message", (event) => {
      if (isCurrent()) this.#receive((event as MessageEvent<string | ArrayBuffer>).data)
    })
    const lose = () => {
      if (!isCurrent()) return
      this.#socket = undefined
      this.#lost().catch((error: unknown) => this.#failed(error))
    }
    socket.addEventListener("close", lose)
    // Node.js 20 reports a refused socket by this event alone.
    socket.addEventListener("error", () => this.isOpen || lose())
    if (this.isEnded) socket.close()
  }

  #opened(socket: Socket): void {
    this.isOpen = true
    const room = this.#plan.window - this.#queuedBytes
    const window = Math.min(this.#plan.window, Math.max(room, windowBytesMin))
    this.#excess = window - room
    this.#unacknowledged = 0
    const first = this.#plan.firstMessage?.(window)
    if (first !== undefined) socket.send(JSON.stringify(first))
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

  /** Puts text into the output that is no part of it. */
  insert(output: StreamOutput): void {
    this.#queue.push(output)
    this.#queuedBytes += output.bytes.length
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
    this.#refused(errorOf(message)).catch((error: unknown) => this.#failed(error))
  }

  async #refused(error: AppError): Promise<void> {
    const mayGoOn = isLossToRetry(error) || (this.#attempts.isLost && error.retryable)
    if (mayGoOn && this.#attempts.isAllowed && this.#plan.mayReconnect?.()) {
      this.#drop()
      return this.#reconnect(error)
    }
    const isWorthIt = (await this.#plan.onRefused?.(error)) ?? false
    if (!isWorthIt || this.isEnded) return this.fail(error)
    this.#drop()
    await this.#open()
  }

  /** Lets go of the socket; its events mean nothing from now on. */
  #drop(): void {
    const socket = this.#socket
    this.#socket = undefined
    this.isOpen = false
    socket?.close()
  }

  #giveUp(message: string, cause?: unknown): void {
    this.fail(new AppError("internal", message, { cause, hint: "is it a bhatti daemon of this version?" }))
    this.#socket?.close()
  }

  async #lost(): Promise<void> {
    const wasOpen = this.isOpen
    this.isOpen = false
    if (this.isEnded) return this.#onClosed()
    const isFirst = !wasOpen && !this.#attempts.isLost
    if (isFirst) return this.#failed(await this.#plan.whyRefused())
    const lost = new AppError("unavailable", this.#plan.lostMessage, { retryable: false })
    if (!this.#attempts.isAllowed || !this.#plan.mayReconnect?.()) return this.#failed(lost)
    const error = wasOpen ? lost : await this.#plan.whyRefused()
    if (!wasOpen && !error.retryable) return this.#failed(error)
    await this.#reconnect(error)
  }

  async #reconnect(error: AppError): Promise<void> {
    const isInTime = await this.#attempts.next()
    if (this.isEnded) return this.#onClosed()
    if (!isInTime) return this.#failed(unknownFate(error))
    try {
      await this.#open()
    } catch (failure) {
      // The ticket of a browser is asked for by a request of its own.
      if (!(failure instanceof AppError) || !failure.retryable) throw failure
      await this.#reconnect(failure)
    }
  }

  #failed(error: unknown): void {
    this.fail(error)
    this.#onClosed()
  }

  #stop(): void {
    this.isEnded = true
    this.#wakeReader()
    this.#plan.onChange?.()
  }
}

function errorOf({ code, message, hint, subject, reason, retryable }: Failure): AppError {
  return new AppError(isErrorCode(code) ? code : "internal", message, {
    hint: hint ?? undefined,
    subject: subject as Subject | undefined,
    reason,
    ...(retryable !== undefined && { retryable }),
  })
}

function isFailure(message: { type: string }): message is Failure {
  return message.type === "error"
}
