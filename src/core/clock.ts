/** The time as `core` sees it, so that a test can bring its own. */

export interface Alarm {
  cancel(): void
}

export interface Clock {
  /** Goes only forward; says nothing about the time of day. */
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
