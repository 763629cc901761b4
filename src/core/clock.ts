/** The time as `core` sees it; tests replace it. */

export interface Alarm {
  cancel(): void
}

export interface Clock {
  /** Monotonic; unrelated to the time of day. */
  nowMs(): number
  /** Runs `work` later, unless the process ends first. */
  after(ms: number, work: () => void): Alarm
}

export const systemClock: Clock = {
  nowMs: () => performance.now(),
  after(ms, work) {
    const timer = setTimeout(work, ms)
    timer.unref()
    return { cancel: () => clearTimeout(timer) }
  },
}
