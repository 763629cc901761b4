/** Statistics of a series of measurements. Pure. */

export type Summary = { n: number; min: number; p50: number; p95: number; p99: number; max: number }

/** Percentiles by nearest rank: each is a value that was measured. */
export function summarise(samples: readonly number[]): Summary {
  if (samples.length === 0) throw new Error("no samples")
  const sorted = [...samples].sort((a, b) => a - b)
  const at = (percent: number) => sorted[Math.max(0, Math.ceil((percent / 100) * sorted.length) - 1)] ?? 0
  return { n: sorted.length, min: at(0), p50: at(50), p95: at(95), p99: at(99), max: at(100) }
}

/** How many times the peer's median ours is. Of medians, because one stalled round must not decide. */
export function ratio(ours: readonly number[], peer: readonly number[]): number {
  return summarise(ours).p50 / summarise(peer).p50
}
