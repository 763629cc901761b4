/** Results as text: a Markdown table that can be pasted as it is, and the same as JSON. Pure. */

import { p95RatioOf, type Row, ratioOf, verdicts } from "./row.ts"
import { summarise } from "./statistics.ts"

const titles = ["what", "n", "min", "p50", "p95", "p99", "max", "against", "its p50", "ratio", "promise"]
/** Numbers line up at the right. */
const isNumber = [false, true, true, true, true, true, true, false, true, true, false]

export function markdownTable(rows: readonly Row[]): string {
  const lines = [titles, ...rows.map(cells)]
  const widths = titles.map((_, column) =>
    Math.max(3, ...lines.map((line) => [...(line[column] ?? "")].length)),
  )
  const draw = (line: string[]) =>
    `| ${line.map((cell, column) => pad(cell, widths[column] ?? 0, isNumber[column] ?? false)).join(" | ")} |`
  const rule = `|${widths.map((width, column) => (isNumber[column] ? `${"-".repeat(width + 1)}:` : "-".repeat(width + 2))).join("|")}|`
  return [draw(titles), rule, ...lines.slice(1).map(draw)].join("\n")
}

/** Shows a row during the run. */
export function rowLine(row: Row): string {
  const ratio = ratioOf(row)
  const compared = ratio === undefined ? "" : `, ${ratio.toFixed(2)} × ${row.peer?.what}`
  return `${row.what}: ${number(summarise(row.samples).p50)} ${row.unit}${compared}`
}

function cells(row: Row): string[] {
  const { n, min, p50, p95, p99, max } = summarise(row.samples)
  const ratio = ratioOf(row)
  const numbers = [min, p50, p95, p99, max].map((value) => number(value))
  return [
    `${row.what} (${row.unit})`,
    `${n}`,
    ...numbers,
    ratio === undefined ? "" : (row.peer?.what ?? ""),
    ratio === undefined ? "" : number(summarise(row.peer?.samples ?? []).p50),
    ratio === undefined ? "" : ratio.toFixed(2),
    promiseText(row),
  ]
}

function promiseText(row: Row): string {
  const { p50Max, p95Max, ratioMax, p95RatioMax } = row.promise ?? {}
  const judged = verdicts(row)
  return [
    judged.p50 && `p50 ≤ ${p50Max} ${judged.p50}`,
    judged.p95 && `p95 ≤ ${p95Max} ${judged.p95}`,
    judged.p95Ratio &&
      `p95 ≤ ${p95RatioMax} × its p95 ${judged.p95Ratio} (${(p95RatioOf(row) ?? 0).toFixed(2)})`,
    judged.ratio && `ratio ≤ ${ratioMax} ${judged.ratio}`,
  ]
    .filter((part) => part !== undefined)
    .join(", ")
}

/** Three digits say all that a measurement can. */
export function number(value: number): string {
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2)
}

function pad(text: string, width: number, atRight: boolean): string {
  const gap = " ".repeat(Math.max(0, width - [...text].length))
  return atRight ? gap + text : text + gap
}

export function toJson(row: Row): Record<string, unknown> {
  return {
    what: row.what,
    unit: row.unit,
    ...summarise(row.samples),
    samples: row.samples,
    ...(row.peer &&
      row.peer.samples.length > 0 && {
        peer: { what: row.peer.what, ...summarise(row.peer.samples), samples: row.peer.samples },
        ratio: ratioOf(row),
      }),
    ...(row.promise && { promise: row.promise, verdicts: verdicts(row) }),
  }
}
