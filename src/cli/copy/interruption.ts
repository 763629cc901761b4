/**
 * Signals during a transfer: the transfer is cancelled cleanly, leaves no partial files, and the exit code names
 * the signal.
 */

import type { Output } from "../output.ts"

const exitCodes = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const

export class Interruption implements Disposable {
  exitCode: number | undefined
  readonly #abort = new AbortController()
  readonly #listeners = Object.entries(exitCodes).map(([signal, exitCode]) => {
    const listener = () => {
      this.exitCode ??= exitCode
      this.#abort.abort()
    }
    process.on(signal, listener)
    return { signal, listener }
  })

  get signal(): AbortSignal {
    return this.#abort.signal
  }

  /**
   * Runs a transfer and returns its exit code, or the signal's if it was interrupted; `words` then describe the
   * outcome.
   */
  static async guard(
    { out, words }: { out: Output; words: string },
    transfer: (signal: AbortSignal) => Promise<number>,
  ): Promise<number> {
    using interruption = new Interruption()
    try {
      return await transfer(interruption.signal)
    } catch (error) {
      if (interruption.exitCode === undefined) throw error
      await out.talk(`interrupted; ${words}`)
      return interruption.exitCode
    }
  }

  [Symbol.dispose](): void {
    for (const { signal, listener } of this.#listeners) process.off(signal, listener)
  }
}
