/**
 * The write queue of a socket.
 *
 * Keeps the order and writes every byte once. Data waits for room before it is queued; the few other frames do not,
 * so the connection is dropped if the queue grows too long because the peer does not read.
 */

/** Data waits while more than this is queued: enough to keep the socket busy, little enough to stay fair. */
const fullBytes = 131_072
/** The queue grows beyond this only if the peer has stopped reading. */
const overflowBytes = 16 * 1024 * 1024

export class Outbox {
  readonly #write: (bytes: Uint8Array) => number
  readonly #queue: Uint8Array[] = []
  readonly #waiting: (() => void)[] = []
  #bytes = 0
  #isClosed = false

  /** `write` returns how many bytes it took; less than 1 means none. */
  constructor(write: (bytes: Uint8Array) => number) {
    this.#write = write
  }

  get isOverflowing(): boolean {
    return this.#bytes > overflowBytes
  }

  push(bytes: Uint8Array): void {
    if (this.#isClosed) return
    this.#queue.push(bytes)
    this.#bytes += bytes.length
    if (this.#queue.length === 1) this.flush()
  }

  /** Writes as much as the socket takes; called whenever it may take more. */
  flush(): void {
    for (let first = this.#queue[0]; first !== undefined && !this.#isClosed; first = this.#queue[0]) {
      const written = Math.max(0, this.#write(first))
      this.#bytes -= written
      if (written < first.length) {
        this.#queue[0] = first.subarray(written)
        break
      }
      this.#queue.shift()
    }
    if (this.#bytes < fullBytes) this.#letOneGo()
  }

  /** Waits until there is room for one more frame. Waiters are admitted one at a time. */
  async room(): Promise<void> {
    if (this.#isClosed || (this.#bytes < fullBytes && this.#waiting.length === 0)) return
    await new Promise<void>((resolve) => this.#waiting.push(resolve))
    if (this.#bytes < fullBytes) queueMicrotask(() => this.#letOneGo())
  }

  close(): void {
    this.#isClosed = true
    this.#queue.length = 0
    for (const resolve of this.#waiting.splice(0)) resolve()
  }

  #letOneGo(): void {
    this.#waiting.shift()?.()
  }
}
