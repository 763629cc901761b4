/**
 * How long a sandbox that fails to start is let rest: the first failures cost nothing, after them each rest is twice as long
 * as the one before, up to a bound. Facts and the time in, decision out.
 */

/** Starts that failed one after the other. Times are the clock's. */
export type Failures = { inARow: number; lastAtMs: number }

/** As many may be the host's bad moment. */
export const failuresWithoutRest = 3
const firstRestMs = 5000
/** So that a sandbox whose trouble is over is not kept from its users for long. */
export const restMsMax = 60_000

export function failedOnceMore(before: Failures | undefined, nowMs: number): Failures {
  return { inARow: (before?.inARow ?? 0) + 1, lastAtMs: nowMs }
}

/** 0: it may be started. */
export function restLeftMs(failures: Failures | undefined, nowMs: number): number {
  if (failures === undefined || failures.inARow < failuresWithoutRest) return 0
  const restMs = Math.min(restMsMax, firstRestMs * 2 ** (failures.inARow - failuresWithoutRest))
  return Math.max(0, failures.lastAtMs + restMs - nowMs)
}
