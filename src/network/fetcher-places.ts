/**
 * User ids of programs that fetch images, shared fairly: an owner has a bounded number of them at once, and the owner
 * with the fewest is next.
 */

import { whenAborted } from "../lib/when-aborted.ts"

type Waiting = { owner: string; resolve: (uid: number) => void }

export class FetcherPlaces {
  readonly #free: number[]
  readonly #ownerMax: number
  readonly #taken = new Map<string, number>()
  /** In the order that they came in. */
  readonly #waiting: Waiting[] = []

  constructor(uids: readonly number[], { ownerMax }: { ownerMax: number }) {
    this.#free = [...uids]
    this.#ownerMax = ownerMax
  }

  /** Waits until a user id is free for this owner. */
  async take(owner: string, signal: AbortSignal): Promise<number> {
    signal.throwIfAborted()
    const { promise, resolve, reject } = Promise.withResolvers<number>()
    const waiting = { owner, resolve }
    this.#waiting.push(waiting)
    this.#next()
    using _ = whenAborted(signal, () => {
      const place = this.#waiting.indexOf(waiting)
      if (place < 0) return
      this.#waiting.splice(place, 1)
      reject(signal.reason)
    })
    return await promise
  }

  give(owner: string, uid: number): void {
    const left = this.#takenBy(owner) - 1
    if (left > 0) this.#taken.set(owner, left)
    else this.#taken.delete(owner)
    this.#free.push(uid)
    this.#next()
  }

  #next(): void {
    let next: Waiting | undefined
    for (const one of this.#waiting) {
      const taken = this.#takenBy(one.owner)
      if (taken < this.#ownerMax && (next === undefined || taken < this.#takenBy(next.owner))) next = one
    }
    const uid = next && this.#free.shift()
    if (next === undefined || uid === undefined) return
    this.#waiting.splice(this.#waiting.indexOf(next), 1)
    this.#taken.set(next.owner, this.#takenBy(next.owner) + 1)
    next.resolve(uid)
  }

  #takenBy(owner: string): number {
    return this.#taken.get(owner) ?? 0
  }
}
