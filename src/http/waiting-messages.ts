/**
 * What a WebSocket's client has sent, on its way to the socket's session: in its order, each message only when the database
 * says that the socket's key is still valid. A command or a keystroke that comes after its key was taken away does nothing.
 */

import type { ServerWebSocket } from "bun"
import { AppError } from "../contract/errors.ts"
import { limits } from "../contract/limits.ts"
import type { SocketState } from "./context.ts"

/** The database answers faster than messages come, so that hardly anything ever waits. */
const waitingBytesMax = 4 * limits.execStreamWindowBytes
/** Counted for an empty message. */
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
      this.#fail(new AppError("limit_exceeded", "messages come faster than they can be taken"))
      return
    }
    this.#waitingBytes += bytes
    // The socket uses its buffer again.
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
    // That it was taken away is told already.
    if (!holder.revoked.aborted) session.fail(this.#socket, error)
  }
}
