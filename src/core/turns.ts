/** One queue per sandbox: whoever holds its turn may change its state. Reads never wait. */

export class Turns {
  readonly #tails = new Map<string, Promise<void>>()

  /** Somebody has the sandbox's turn now. */
  isTaken(id: string): boolean {
    return this.#tails.has(id)
  }

  /** Runs `work` when everybody before has finished, whatever came of it. */
  async take<T>(id: string, work: () => Promise<T>): Promise<T> {
    const before = this.#tails.get(id) ?? Promise.resolve()
    const done = Promise.withResolvers<void>()
    const tail = before.then(() => done.promise)
    this.#tails.set(id, tail)
    await before
    try {
      return await work()
    } finally {
      done.resolve()
      if (this.#tails.get(id) === tail) this.#tails.delete(id)
    }
  }
}
