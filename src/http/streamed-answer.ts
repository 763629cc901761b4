/** An answer whose body is not one value: bytes that its reader takes piece by piece, and that end with their reader. */

import type { TakingPace } from "../rules/taking.ts"

export class StreamedAnswer {
  readonly headers: Record<string, string>
  /** How fast its reader has to take it; without it, it may take its time. */
  readonly pace: TakingPace | undefined
  readonly #next: () => Promise<Uint8Array | undefined>
  readonly #onClosed: () => void
  #closed: { reason: unknown } | undefined
  /** Of the read that is waited for. */
  #giveUp: ((reason: unknown) => void) | undefined

  /** `onClosed` is called once, when nothing more is read: after the last piece, an error, or when the reader has left. */
  constructor(options: {
    headers: Record<string, string>
    pace?: TakingPace
    next: () => Promise<Uint8Array | undefined>
    onClosed: () => void
  }) {
    this.headers = { "cache-control": "no-store", ...options.headers }
    this.pace = options.pace
    this.#next = options.next
    this.#onClosed = options.onClosed
  }

  /** The next piece, or nothing at the end. Rejects when what is left cannot be had. */
  async read(): Promise<Uint8Array | undefined> {
    if (this.#closed) throw this.#closed.reason
    try {
      const bytes = await new Promise<Uint8Array | undefined>((resolve, reject) => {
        this.#giveUp = reject
        this.#next().then(resolve, reject)
      })
      if (!bytes) this.close()
      return bytes
    } catch (error) {
      this.close(error)
      throw error
    }
  }

  /** Whatever waits rejects. */
  close(reason: unknown = new Error("the answer is over")): void {
    if (this.#closed) return
    this.#closed = { reason }
    this.#onClosed()
    this.#giveUp?.(reason)
  }
}
