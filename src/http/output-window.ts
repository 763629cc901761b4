/**
 * The server's side of a WebSocket's flow control: output is sent only as far as the client has acknowledged it, or,
 * for a client that does not acknowledge, as fast as its socket drains.
 */

import type { ServerWebSocket } from "bun"
import type { SocketState } from "./context.ts"

/** Bytes sent before other requests get a turn: the daemon is single-threaded, and a flood never pauses by itself. */
const turnBytesMax = 64 * 1024

export class OutputWindow {
  readonly #socket: ServerWebSocket<SocketState>
  #credit: number
  #sentInTurn = 0
  #isClosed = false
  #wake: (() => void) | undefined

  constructor(socket: ServerWebSocket<SocketState>, options: { window: number | undefined }) {
    this.#socket = socket
    this.#credit = options.window ?? Number.POSITIVE_INFINITY
  }

  /** Sends output; `channel`, if given, is its first byte. Returns false if the client is gone. */
  async send(bytes: Uint8Array, channel?: number): Promise<boolean> {
    while (this.#credit <= 0 && !this.#isClosed) await this.#woken()
    if (this.#isClosed) return false
    this.#credit -= bytes.length
    // -1: queued behind a full socket; `drained` is called when that has emptied.
    if (this.#socket.sendBinary(channel === undefined ? bytes : prefixed(channel, bytes)) === -1)
      await this.#woken()
    this.#sentInTurn += bytes.length
    if (this.#sentInTurn >= turnBytesMax) {
      this.#sentInTurn = 0
      await new Promise((resolve) => setImmediate(resolve))
    }
    return !this.#isClosed
  }

  acknowledge(bytes: number): void {
    this.#credit += bytes
    this.#wake?.()
  }

  drained(): void {
    this.#wake?.()
  }

  close(): void {
    this.#isClosed = true
    this.#wake?.()
  }

  #woken(): Promise<void> {
    if (this.#isClosed) return Promise.resolve()
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#wake = () => {
      this.#wake = undefined
      resolve()
    }
    return promise
  }
}

function prefixed(channel: number, bytes: Uint8Array): Uint8Array {
  const message = new Uint8Array(1 + bytes.length)
  message[0] = channel
  message.set(bytes, 1)
  return message
}
