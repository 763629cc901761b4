/**
 * A life of the daemon, from its start to its end or crash. Whatever it asks of the host or the store waits here, and
 * the simulation decides which goes on next, which fails, and when everything stops for ever. So the order of events is
 * the seed's and not the event loop's.
 */

import type { Alarm, Clock } from "../../src/core/clock.ts"

export type Waiting = {
  label: string
  go: () => void
  /** Makes the call fail instead; missing where it cannot. */
  fail: ((error: unknown) => void) | undefined
  /** How it may fail. */
  errors: (() => unknown)[]
}

export class Life {
  waiting: Waiting[] = []
  timers: { atMs: number; work: () => void }[] = []
  isOver = false

  /** Resolves when the simulation says so; never, once this life is over. */
  step(label: string, errors: (() => unknown)[] = []): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.isOver) return
      this.waiting.push({ label, go: resolve, fail: errors.length > 0 ? reject : undefined, errors })
    })
  }

  take(index: number): Waiting {
    const [taken] = this.waiting.splice(index, 1)
    if (!taken) throw new Error("nothing waits")
    return taken
  }

  /** As `kill -9`: nothing that waits ever goes on. */
  end(): void {
    this.isOver = true
    this.waiting = []
    this.timers = []
  }
}

export class SimulatedTime {
  nowMs = 1000
  #setByMs = 0
  #boot = 1
  #bootedAtMs = 0

  /** Somebody sets the host's time of day. */
  set(byMs: number): void {
    this.#setByMs += byMs
  }

  reboot(): void {
    this.#boot++
    this.#bootedAtMs = this.nowMs
  }

  clockOf(life: Life): Clock {
    return {
      nowMs: () => this.nowMs,
      unixMs: () => this.nowMs + this.#setByMs,
      sinceBoot: () => ({ bootId: String(this.#boot), ms: this.nowMs - this.#bootedAtMs }),
      after: (ms, work): Alarm => {
        const timer = { atMs: this.nowMs + ms, work }
        if (!life.isOver) life.timers.push(timer)
        return {
          cancel: () => {
            life.timers = life.timers.filter((one) => one !== timer)
          },
        }
      },
    }
  }

  /** Rings what is due by then, in its order. */
  advance(life: Life, ms: number): void {
    this.nowMs += ms
    const due = life.timers
      .filter(({ atMs }) => atMs <= this.nowMs)
      .sort((one, other) => one.atMs - other.atMs)
    life.timers = life.timers.filter((timer) => !due.includes(timer))
    for (const { work } of due) work()
  }
}

/** Lets everything run that waits for nothing outside. */
export function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}
