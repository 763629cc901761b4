/**
 * Work that several callers wait for: begun once per key, ended when the last caller has left, and its progress told to
 * all of them.
 */

type Going<Progress, Result> = {
  result: Promise<Result>
  stop: AbortController
  listeners: Set<(progress: Progress) => void>
}

type Options<Progress> = { onProgress: (progress: Progress) => void; signal: AbortSignal }

export class SharedWork<Progress, Result> {
  readonly #going = new Map<string, Going<Progress, Result>>()

  async join(
    key: string,
    { onProgress, signal }: Options<Progress>,
    work: (options: Options<Progress>) => Promise<Result>,
  ): Promise<Result> {
    for (;;) {
      signal.throwIfAborted()
      const going = this.#going.get(key) ?? this.#begin(key, work)
      if (!going.stop.signal.aborted) return await this.#wait(going, { onProgress, signal })
      // The last one has just left: it is being undone.
      await going.result.catch(() => undefined)
    }
  }

  #begin(key: string, work: (options: Options<Progress>) => Promise<Result>): Going<Progress, Result> {
    const stop = new AbortController()
    const listeners = new Set<(progress: Progress) => void>()
    const onProgress = (progress: Progress) => {
      for (const listener of listeners) listener(progress)
    }
    const result = work({ onProgress, signal: stop.signal }).finally(() => this.#going.delete(key))
    result.catch(() => undefined)
    const going = { result, stop, listeners }
    this.#going.set(key, going)
    return going
  }

  async #wait(going: Going<Progress, Result>, { onProgress, signal }: Options<Progress>): Promise<Result> {
    const listener = (progress: Progress) => onProgress(progress)
    going.listeners.add(listener)
    const { promise: left, reject } = Promise.withResolvers<never>()
    const leave = () => reject(signal.reason)
    signal.addEventListener("abort", leave, { once: true })
    try {
      return await Promise.race([going.result, left])
    } finally {
      signal.removeEventListener("abort", leave)
      going.listeners.delete(listener)
      if (going.listeners.size === 0) {
        going.stop.abort(signal.reason)
        // A caller that cancels finds nothing left.
        if (signal.aborted) await going.result.catch(() => undefined)
      }
    }
  }
}
