/** Statistics of the benchmark's samples. */

import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import { ratio, summarise } from "../../bench/statistics.ts"

describe("a summary", () => {
  test("has percentiles by nearest rank", () => {
    const samples = Array.from({ length: 100 }, (_, index) => 100 - index)
    expect(summarise(samples)).toEqual({ n: 100, min: 1, p50: 50, p95: 95, p99: 99, max: 100 })
  })

  test("of one sample is that sample", () => {
    expect(summarise([7])).toEqual({ n: 1, min: 7, p50: 7, p95: 7, p99: 7, max: 7 })
  })

  test("of nothing is refused", () => {
    expect(() => summarise([])).toThrow("no samples")
  })

  test("is made of samples, in order", () => {
    const samples = fc.array(fc.double({ noNaN: true }), { minLength: 1 })
    fc.assert(
      fc.property(samples, (values) => {
        const { min, p50, p95, p99, max } = summarise(values)
        const ladder = [min, p50, p95, p99, max]
        expect(ladder).toEqual(ladder.toSorted((a, b) => a - b))
        for (const value of ladder) expect(values).toContain(value)
      }),
    )
  })
})

test("a ratio compares medians, so one stalled round does not decide", () => {
  expect(ratio([10, 11, 5000], [20, 22, 24])).toBe(0.5)
})
