/** The time as `core` sees it; tests replace it. */

import { monotonicMs } from "../lib/posix.ts"
import { hostBootId } from "../lib/process-identity.ts"

export interface Alarm {
  cancel(): void
}

export interface Clock {
  /** Monotonic; unrelated to the time of day. */
  nowMs(): number
  /** The time of day, which somebody may set; for what is kept longer than the process. */
  unixMs(): number
  /** The kernel's clock since the host's boot. It never jumps, and stands still while the host is suspended. */
  sinceBoot(): { bootId: string; ms: number }
  /** Runs `work` later, unless the process ends first. */
  after(ms: number, work: () => void): Alarm
}

export const systemClock: Clock = {
  nowMs: () => performance.now(),
  unixMs: () => Date.now(),
  sinceBoot: () => ({ bootId: hostBootId, ms: monotonicMs() }),
  after(ms, work) {
    const timer = setTimeout(work, ms)
    timer.unref()
    return { cancel: () => clearTimeout(timer) }
  },
}

/** The time of day as texts and the database have it. */
export function isoNow(clock: Pick<Clock, "unixMs">): string {
  return new Date(clock.unixMs()).toISOString()
}

/** Waits between the rounds of a loop; a signal ends the wait. */
export function sleep(clock: Clock, ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      alarm.cancel()
      // The signal lives as long as the daemon and would collect a listener per round.
      signal.removeEventListener("abort", end)
      resolve()
    }
    const alarm = clock.after(ms, end)
    signal.addEventListener("abort", end)
    if (signal.aborted) end()
  })
}
