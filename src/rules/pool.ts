/**
 * How many sandboxes of each size the pool keeps ready: as many as recent creates needed at once, within its memory
 * limit. Facts and the time in, numbers out.
 */

export type PoolSettings = {
  /** Limit per size; 0 disables the pool. */
  sizeMax: number
  /** Memory limit of all ready sandboxes together. */
  memoryMibMax: number
}

/** The known demand for one size. */
export type Demand = {
  /** Creates in the last burst. */
  burst: number
  /** The largest recent burst. */
  peak: number
  lastAtMs: number
}

/** Private memory of a ready sandbox, measured: translated code, QEMU's heap, written pages. */
export const pooledMib = 36
/** Kept of every size in use: one to take, one for the next create while its replacement is made. */
const readyMin = 2
/** Creates that follow each other within this time form one burst. */
export const burstGapMs = 2000
/** A large burst is expected again for this long. */
export const forgetPeakAfterMs = 10 * 60_000
/** After this long without demand, a size is evicted, unless it is the most recently used one. */
export const forgetSizeAfterMs = 30 * 60_000

/** Returns the demand after one more create. */
export function wantedOnceMore(before: Demand | undefined, nowMs: number): Demand {
  const sinceMs = before ? nowMs - before.lastAtMs : Number.POSITIVE_INFINITY
  const burst = before && sinceMs <= burstGapMs ? before.burst + 1 : 1
  const peak = before && sinceMs <= forgetPeakAfterMs ? Math.max(before.peak, burst) : burst
  return { burst, peak, lastAtMs: nowMs }
}

/** Returns the demand for a size that nobody has created yet, but will: it comes after those of recent creates. */
export function expectedSoon(nowMs: number): Demand {
  return { burst: 0, peak: 1, lastAtMs: nowMs - forgetPeakAfterMs }
}

/**
 * Returns how many to keep ready of each size, in the order of `demands`. The most recently used sizes get memory
 * first.
 */
export function poolTargets(demands: readonly Demand[], settings: PoolSettings, nowMs: number): number[] {
  const targets = demands.map(() => 0)
  const latestFirst = demands.map((_, index) => index).sort((a, b) => lastOf(demands, b) - lastOf(demands, a))
  let left = Math.floor(settings.memoryMibMax / pooledMib)
  for (const [rank, index] of latestFirst.entries()) {
    const demand = demands[index]
    if (!demand) continue
    const wanted = Math.min(settings.sizeMax, wantedOf(demand, nowMs - demand.lastAtMs, rank === 0))
    const given = Math.min(wanted, left)
    targets[index] = given
    left -= given
  }
  return targets
}

function wantedOf({ peak }: Demand, unwantedForMs: number, isLatest: boolean): number {
  if (unwantedForMs <= forgetPeakAfterMs) return Math.max(readyMin, peak)
  return isLatest || unwantedForMs <= forgetSizeAfterMs ? readyMin : 0
}

function lastOf(demands: readonly Demand[], index: number): number {
  return demands[index]?.lastAtMs ?? 0
}
