/** A queue per sandbox: the holder of its turn may change its state. Reads never wait. */

import { unlessAborted } from "./unless-aborted.ts"

export class Turns {
  readonly #tails = new Map<string, Promise<void>>()

  /** Returns whether an operation holds the sandbox's turn. */
  isTaken(id: string): boolean {
    return this.#tails.has(id)
  }

  /**
   * Runs `work` when all earlier holders have finished, successfully or not. The signal ends only the wait; after that
   * `work` handles it.
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
      // The next caller still waits for the earlier ones.
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
