/**
 * How many sandboxes of each size the pool keeps ready: as many as were lately asked for at once, within the memory that
 * it may use. Facts and the time in, numbers out.
 */

export type PoolSettings = {
  /** Most of one size; 0: there is no pool. */
  sizeMax: number
  /** What all that wait may use together. */
  memoryMibMax: number
}

/** What is known of the creates of one size. */
export type Demand = {
  /** How many the last burst was. */
  burst: number
  /** The largest burst of late. */
  peak: number
  lastAtMs: number
}

/** Private memory of one that waits, measured: translated code, QEMU's heap, written pages. */
export const pooledMib = 36
/** Kept of every size in use: one to take, one for whoever comes while the next is made. */
const readyMin = 2
/** Creates that follow each other within this time are one burst. */
export const burstGapMs = 2000
/** A large burst is expected again for this long. */
export const forgetPeakAfterMs = 10 * 60_000
/** Of a size that nobody wanted for this long nothing is kept, unless it is the one that was wanted last. */
export const forgetSizeAfterMs = 30 * 60_000

/** The demand after one more create. */
export function wantedOnceMore(before: Demand | undefined, nowMs: number): Demand {
  const sinceMs = before ? nowMs - before.lastAtMs : Number.POSITIVE_INFINITY
  const burst = before && sinceMs <= burstGapMs ? before.burst + 1 : 1
  const peak = before && sinceMs <= forgetPeakAfterMs ? Math.max(before.peak, burst) : burst
  return { burst, peak, lastAtMs: nowMs }
}

/** How many to keep ready of each, in the order of `demands`. Memory goes first to what was wanted last. */
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
