/** A streamed answer: its reader takes the bytes piece by piece, and the source ends with its reader. */

import type { ReadPace } from "../rules/read-pace.ts"

export class StreamedAnswer {
  readonly status: number
  readonly headers: Record<string, string>
  /** Minimum pace of the reader; undefined means no minimum. */
  readonly pace: ReadPace | undefined
  readonly #next: () => Promise<Uint8Array | undefined>
  readonly #onClosed: () => void
  #closed: { reason: unknown } | undefined
  /** Rejects the pending read. */
  #giveUp: ((reason: unknown) => void) | undefined

  /**
   * `onClosed` is called once, when reading is over: after the last piece, on an error, or when the reader has left.
   */
  constructor(options: {
    status?: number
    headers: Record<string, string>
    pace?: ReadPace
    next: () => Promise<Uint8Array | undefined>
    onClosed: () => void
  }) {
    this.status = options.status ?? 200
    this.headers = { "cache-control": "no-store", ...options.headers }
    this.pace = options.pace
    this.#next = options.next
    this.#onClosed = options.onClosed
  }

  /** Returns the next piece, or undefined at the end. Rejects if the rest is unavailable. */
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

  /** Rejects all pending reads. */
  close(reason: unknown = new Error("the answer is over")): void {
    if (this.#closed) return
    this.#closed = { reason }
    this.#onClosed()
    this.#giveUp?.(reason)
  }
}

/** An answer of JSON lines; undefined is an empty line, by which the front sees that the source lives. */
export function jsonLines(lines: AsyncGenerator<object | undefined>, onClosed: () => void): StreamedAnswer {
  return new StreamedAnswer({
    headers: { "content-type": "application/x-ndjson" },
    async next() {
      const { done, value } = await lines.next()
      return done ? undefined : Buffer.from(`${value === undefined ? "" : JSON.stringify(value)}\n`)
    },
    onClosed,
  })
}
