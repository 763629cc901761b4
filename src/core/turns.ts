/** One queue per sandbox: whoever holds its turn may change its state. Reads never wait. */

import { unlessAborted } from "./unless-aborted.ts"

export class Turns {
  readonly #tails = new Map<string, Promise<void>>()

  /** Somebody has the sandbox's turn now. */
  isTaken(id: string): boolean {
    return this.#tails.has(id)
  }

  /**
   * Runs `work` when everybody before has finished, whatever came of it. The signal ends the waiting for that, and is `work`'s own
   * business from then on.
   */
  async take<T>(id: string, work: () => Promise<T>, { signal }: { signal?: AbortSignal } = {}): Promise<T> {
    const before = this.#tails.get(id) ?? Promise.resolve()
    const done = Promise.withResolvers<void>()
    const tail = before.then(() => done.promise)
    this.#tails.set(id, tail)
    const forget = () => {
      if (this.#tails.get(id) === tail) this.#tails.delete(id)
    }
    try {
      await (signal ? unlessAborted(before, signal) : before)
    } catch (error) {
      done.resolve()
      // Whoever comes next still waits for those before.
      void tail.then(forget)
      throw error
    }
    try {
      return await work()
    } finally {
      done.resolve()
      forget()
    }
  }
}
