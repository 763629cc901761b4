/** The rests of sandboxes that fail to start, by example and for all times. */

import { expect, test } from "bun:test"
import fc from "fast-check"
import { backOffLeftMs, type Failures, failedOnceMore, failuresWithoutRest, restMsMax } from "./back-off.ts"

const failedTimes = (count: number, atMs: number) =>
  Array.from({ length: count }).reduce<Failures | undefined>(
    (before) => failedOnceMore(before, atMs),
    undefined,
  )

test("the first failures cost nothing, then each rest is twice the one before, up to a bound", () => {
  const rests = Array.from({ length: 9 }, (_, count) => backOffLeftMs(failedTimes(count, 1000), 1000))
  expect(rests).toEqual([0, 0, 0, 5000, 10_000, 20_000, 40_000, 60_000, 60_000])
})

test("however often it failed, who asks as often as it likes starts it at most once per rest, and at least once per longest rest", () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 20_000 }), { maxLength: 300 }), (gapsMs) => {
      let failures: Failures | undefined
      let nowMs = 0
      for (const gapMs of gapsMs) {
        nowMs += gapMs
        const leftMs = backOffLeftMs(failures, nowMs)
        expect(leftMs).toBeLessThanOrEqual(restMsMax)
        if (failures && nowMs - failures.lastAtMs >= restMsMax) expect(leftMs).toBe(0)
        if (leftMs > 0) {
          expect(backOffLeftMs(failures, nowMs + leftMs)).toBe(0)
          expect(backOffLeftMs(failures, nowMs + leftMs - 1)).toBe(1)
          continue
        }
        if (failures && failures.inARow >= failuresWithoutRest)
          expect(nowMs - failures.lastAtMs).toBeGreaterThanOrEqual(5000)
        failures = failedOnceMore(failures, nowMs)
      }
    }),
  )
})

test("no number of failures makes it rest for ever", () => {
  expect(backOffLeftMs({ inARow: 1e9, lastAtMs: 0 }, 0)).toBe(restMsMax)
})
