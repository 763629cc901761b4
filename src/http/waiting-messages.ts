/**
 * Queues a WebSocket client's messages for the socket's session: in order, each only after the database confirms that
 * the socket's key is still valid. A command or keystroke that arrives after the revocation has no effect.
 */

import { AppError } from "@bhatti/contract/errors"
import { limits } from "@bhatti/contract/limits"
import type { KeyHolder } from "../core/keys.ts"

/** The database answers faster than messages arrive, so the queue is nearly always empty. */
const waitingBytesMax = 4 * limits.execStreamWindowBytes
/** Counted even for an empty message. */
const messageBytes = 64

type Receiver = {
  holder: Pick<KeyHolder, "confirm" | "revoked">
  pass: (message: string | Buffer) => void
  /** Sends the client an error and closes the socket. */
  fail: (error: unknown) => void
}

export class WaitingMessages {
  readonly #receiver: Receiver
  #waitingBytes = 0
  #before: Promise<void> = Promise.resolve()
  #hasFailed = false

  constructor(receiver: Receiver) {
    this.#receiver = receiver
  }

  add(message: string | Buffer): void {
    if (this.#hasFailed) return
    const bytes = message.length + messageBytes
    if (this.#waitingBytes + bytes > waitingBytesMax) {
      this.#fail(new AppError("limit_exceeded", "messages arrive faster than they can be processed"))
      return
    }
    this.#waitingBytes += bytes
    // The socket reuses its buffer.
    const own = typeof message === "string" ? message : Buffer.from(message)
    const pass = async () => {
      await this.#receiver.holder.confirm()
      this.#waitingBytes -= bytes
      if (!this.#hasFailed) this.#receiver.pass(own)
    }
    this.#before = this.#before.then(pass).catch((error: unknown) => this.#fail(error))
  }

  /** Resolves when the messages so far are passed on or refused. */
  get done(): Promise<void> {
    return this.#before
  }

  #fail(error: unknown): void {
    if (this.#hasFailed) return
    this.#hasFailed = true
    const { holder, fail } = this.#receiver
    // The client has already been told of the revocation.
    if (!holder.revoked.aborted) fail(error)
  }
}
