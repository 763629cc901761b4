/**
 * The clock that lifetimes are told by: it counts the time in which this host is switched on. It never jumps, whoever
 * sets the host's time of day; it goes on over restarts of the daemon, and stands still while the host is off or
 * suspended. So a lifetime can end late, and never early. It begins at the time of day of its first start, and belongs
 * to one host: what another host knows by its own clock means nothing here.
 */

import type { ClockMark } from "../store/lifetimes.ts"
import type { Store } from "../store/store.ts"
import type { Clock } from "./clock.ts"

/** After a crash of the host the clock goes on from its last mark. */
const keepEveryMs = 60_000

export class HostClock {
  readonly #clock: Pick<Clock, "sinceBoot" | "unixMs">
  readonly #store: Pick<Store, "lifetimes">
  readonly #mark: ClockMark
  #keptAtMs: number | undefined

  constructor({
    clock,
    store,
  }: { clock: Pick<Clock, "sinceBoot" | "unixMs">; store: Pick<Store, "lifetimes"> }) {
    this.#clock = clock
    this.#store = store
    const { bootId, ms } = clock.sinceBoot()
    const known = store.lifetimes.clockMark
    const isSameBoot = known?.bootId === bootId && known.bootMs <= ms
    this.#mark = isSameBoot
      ? known
      : { bootId, bootMs: ms, hostMs: known?.hostMs ?? Math.round(clock.unixMs()) }
  }

  nowMs(): number {
    return Math.round(this.#mark.hostMs + this.#clock.sinceBoot().ms - this.#mark.bootMs)
  }

  /** The time of day at that time, as far as anybody can tell. */
  isoAt(hostMs: number): string {
    return new Date(Math.round(this.#clock.unixMs() + hostMs - this.nowMs())).toISOString()
  }

  /** Writes a mark if the last one is old. */
  async keep(): Promise<void> {
    const { bootId, ms: bootMs } = this.#clock.sinceBoot()
    const hostMs = this.nowMs()
    if (this.#keptAtMs !== undefined && hostMs - this.#keptAtMs < keepEveryMs) return
    await this.#store.lifetimes.keepClock({ bootId, bootMs: Math.round(bootMs), hostMs })
    this.#keptAtMs = hostMs
  }
}
