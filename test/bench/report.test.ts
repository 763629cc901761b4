/** The benchmark's verdicts, table and options. */

import { describe, expect, test } from "bun:test"
import { parseOptions } from "../../bench/options.ts"
import { markdownTable, number, rowLine, toJson } from "../../bench/report.ts"
import { type Row, verdicts } from "../../bench/row.ts"

const row: Row = {
  what: "exec",
  unit: "ms",
  samples: [10, 20, 30],
  peer: { what: "podman exec", samples: [100, 100, 100] },
  promise: { p50Max: 15, ratioMax: 0.5 },
}

describe("a promise", () => {
  test("is judged on its own for time and ratio", () => {
    expect(verdicts(row)).toEqual({ p50: "missed", ratio: "holds" })
  })

  test("about slow ends is judged by them", () => {
    const slow: Row = { ...row, promise: { p95Max: 30, p95RatioMax: 0.29 } }
    expect(verdicts(slow)).toEqual({ p95: "holds", p95Ratio: "missed" })
    expect(markdownTable([slow])).toContain("p95 ≤ 30 holds, p95 ≤ 0.29 × its p95 missed (0.30)")
  })

  test("about a ratio is not judged without a counterpart", () => {
    const alone = { ...row, peer: { what: "podman exec", samples: [] } }
    expect(verdicts(alone)).toEqual({ p50: "missed" })
    expect(toJson(alone)).not.toHaveProperty("ratio")
  })
})

test("the table is Markdown whose columns line up", () => {
  const table = markdownTable([row, { what: "disk", unit: "MiB", samples: [0.25] }]).split("\n")
  expect(table).toHaveLength(4)
  expect(new Set(table.map((line) => line.length)).size).toBe(1)
  expect(table[2]).toContain("| podman exec |")
  expect(table[2]).toContain("p50 ≤ 15 missed, ratio ≤ 0.5 holds")
  expect(table[3]).toMatch(/^\| disk \(MiB\) +\| +1 \| 0\.25 \|/)
})

test("a row is one line while the run goes on", () => {
  expect(rowLine(row)).toBe("exec: 20.0 ms, 0.20 × podman exec")
  expect(rowLine({ what: "disk", unit: "MiB", samples: [0.25] })).toBe("disk: 0.25 MiB")
})

test("numbers have three digits", () => {
  expect([1234.5, 12.34, 1.234].map(number)).toEqual(["1235", "12.3", "1.23"])
})

describe("options", () => {
  const groups = ["create", "exec"]

  test("have defaults that give a result", () => {
    expect(parseOptions([], groups, ["exec"])).toMatchObject({
      rounds: 100,
      only: [],
      withPodman: true,
      check: false,
    })
  })

  test("name groups, rounds and files", () => {
    expect(
      parseOptions(["--quick", "-n", "7", "--only", "exec", "--json", "out.json"], groups, []),
    ).toMatchObject({
      rounds: 7,
      only: ["exec"],
      jsonPath: "out.json",
    })
  })

  test("to check measure little, and only what is promised as a ratio", () => {
    const checking = parseOptions(["--check"], groups, ["exec"])
    expect(checking).toMatchObject({ check: true, rounds: 10, only: ["exec"] })
    expect(parseOptions(["--check", "--only", "create"], groups, ["exec"])).toMatchObject({
      only: ["create"],
    })
  })

  test("that mean nothing are refused", () => {
    expect(() => parseOptions(["--only", "wake"], groups, [])).toThrow('no group "wake"')
    expect(() => parseOptions(["-n", "0"], groups, [])).toThrow("from 1 to")
    expect(() => parseOptions(["--fast"], groups, [])).toThrow()
  })
})
