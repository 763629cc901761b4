/** One measured thing: its samples, those of its counterpart, and what the documentation promises about it. */

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

/** `p50Max` is for a quiet host of the smallest size we support; `ratioMax` holds on any. */
export type RowPromise = { p50Max?: number; ratioMax?: number }

export type Verdict = "holds" | "missed"

export function ratioOf(row: Row): number | undefined {
  return row.peer && row.peer.samples.length > 0 ? ratio(row.samples, row.peer.samples) : undefined
}

/** Nothing where nothing was promised, or the promise needs a counterpart that was not there. */
export function verdicts(row: Row): { p50?: Verdict; ratio?: Verdict } {
  const { p50Max, ratioMax } = row.promise ?? {}
  const measuredRatio = ratioOf(row)
  return {
    ...(p50Max !== undefined && { p50: judge(summarise(row.samples).p50, p50Max) }),
    ...(ratioMax !== undefined && measuredRatio !== undefined && { ratio: judge(measuredRatio, ratioMax) }),
  }
}

function judge(measured: number, max: number): Verdict {
  return measured <= max ? "holds" : "missed"
}
