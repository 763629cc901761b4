/**
 * Queues a WebSocket client's messages for the socket's session: in order, each only after the database confirms that
 * the socket's key is still valid. A command or keystroke that arrives after the revocation has no effect.
 */

import { AppError } from "@bhatti/contract/errors"
import { limits } from "@bhatti/contract/limits"
import type { ServerWebSocket } from "bun"
import type { SocketState } from "./context.ts"

/** The database answers faster than messages arrive, so the queue is nearly always empty. */
const waitingBytesMax = 4 * limits.execStreamWindowBytes
/** Counted even for an empty message. */
const messageBytes = 64

export class WaitingMessages {
  readonly #socket: ServerWebSocket<SocketState>
  #waitingBytes = 0
  #before: Promise<void> = Promise.resolve()
  #hasFailed = false

  constructor(socket: ServerWebSocket<SocketState>) {
    this.#socket = socket
  }

  add(message: string | Buffer): void {
    if (this.#hasFailed) return
    const { session, holder } = this.#socket.data
    const bytes = message.length + messageBytes
    if (this.#waitingBytes + bytes > waitingBytesMax) {
      this.#fail(new AppError("limit_exceeded", "messages arrive faster than they can be processed"))
      return
    }
    this.#waitingBytes += bytes
    // The socket reuses its buffer.
    const own = typeof message === "string" ? message : Buffer.from(message)
    const pass = async () => {
      await holder.confirm()
      this.#waitingBytes -= bytes
      if (!this.#hasFailed) session.onMessage(this.#socket, own)
    }
    this.#before = this.#before.then(pass).catch((error: unknown) => this.#fail(error))
  }

  #fail(error: unknown): void {
    if (this.#hasFailed) return
    this.#hasFailed = true
    const { session, holder } = this.#socket.data
    // The client has already been told of the revocation.
    if (!holder.revoked.aborted) session.fail(this.#socket, error)
  }
}
