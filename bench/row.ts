/** A row of the report: its samples, those of its counterpart, and the documentation's promise about it. */

import { ratio, summarise } from "./statistics.ts"

export type Unit = "ms" | "MiB"

export type Row = {
  what: string
  unit: Unit
  samples: number[]
  /** The same thing done by somebody else, in the same rounds. */
  peer?: { what: string; samples: number[] }
  promise?: RowPromise
}

/** `p50Max` and `p95Max` are for a quiet host of the smallest size we support; the ratios hold on any. */
export type RowPromise = { p50Max?: number; p95Max?: number; ratioMax?: number; p95RatioMax?: number }

export type Verdict = "holds" | "missed"

export function ratioOf(row: Row): number | undefined {
  return row.peer && row.peer.samples.length > 0 ? ratio(row.samples, row.peer.samples) : undefined
}

/** Compares the slow ends of both. */
export function p95RatioOf({ samples, peer }: Row): number | undefined {
  if (!peer || peer.samples.length === 0) return undefined
  return summarise(samples).p95 / summarise(peer.samples).p95
}

/** Leaves out what was not promised, or promised against a counterpart that is missing. */
export function verdicts(row: Row): { p50?: Verdict; p95?: Verdict; ratio?: Verdict; p95Ratio?: Verdict } {
  const { p50Max, p95Max, ratioMax, p95RatioMax } = row.promise ?? {}
  const measuredRatio = ratioOf(row)
  const measuredP95Ratio = p95RatioOf(row)
  return {
    ...(p50Max !== undefined && { p50: judge(summarise(row.samples).p50, p50Max) }),
    ...(p95Max !== undefined && { p95: judge(summarise(row.samples).p95, p95Max) }),
    ...(p95RatioMax !== undefined &&
      measuredP95Ratio !== undefined && { p95Ratio: judge(measuredP95Ratio, p95RatioMax) }),
    ...(ratioMax !== undefined && measuredRatio !== undefined && { ratio: judge(measuredRatio, ratioMax) }),
  }
}

function judge(measured: number, max: number): Verdict {
  return measured <= max ? "holds" : "missed"
}
