/**
 * The back-off of a sandbox that fails to start: the first failures cost nothing, then each wait is twice the last one,
 * up to a limit. Facts and the time in, decision out.
 */

/** Consecutive failed starts. Times are the clock's. */
export type Failures = { inARow: number; lastAtMs: number }

/** A few failures may only be a bad moment of the host. */
export const failuresWithoutRest = 3
const firstRestMs = 5000
/** Limits how long users wait after the trouble is over. */
export const restMsMax = 60_000

export function failedOnceMore(before: Failures | undefined, nowMs: number): Failures {
  return { inARow: (before?.inARow ?? 0) + 1, lastAtMs: nowMs }
}

/** Returns 0 if it may be started. */
export function backOffLeftMs(failures: Failures | undefined, nowMs: number): number {
  if (failures === undefined || failures.inARow < failuresWithoutRest) return 0
  const restMs = Math.min(restMsMax, firstRestMs * 2 ** (failures.inARow - failuresWithoutRest))
  return Math.max(0, failures.lastAtMs + restMs - nowMs)
}
