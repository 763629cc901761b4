/** When a zygote is made, replaced and given up. */

import { expect, test } from "bun:test"
import fc from "fast-check"
import {
  childrenMax,
  forgetZygoteAfterMs,
  isOverdue,
  isWornOut,
  isWorthIt,
  restAfterFailures,
  zygoteAgeMaxMs,
  zygotesMax,
  zygoteTargets,
} from "./zygotes.ts"

test("a template is worth one at its second use, or at its first where machines are made in advance", () => {
  const worth = (inAdvance: boolean) => [1, 2, 3].map((uses) => isWorthIt(uses, { inAdvance }))
  expect([worth(false), worth(true)]).toEqual([
    [false, true, true],
    [true, true, true],
  ])
})

test("a zygote is replaced after so many machines, or a day", () => {
  const fresh = { children: 0, madeAtMs: 1000, failuresInARow: 0 }
  expect(isWornOut(fresh, 1000)).toBe(false)
  expect(isWornOut({ ...fresh, children: childrenMax }, 1000)).toBe(true)
  expect(isWornOut(fresh, 1000 + zygoteAgeMaxMs)).toBe(true)
})

test("at twice as many machines, or two days, it ends even without another one", () => {
  const worn = { children: childrenMax, madeAtMs: 1000, failuresInARow: 0 }
  expect(isOverdue(worn, 1000 + zygoteAgeMaxMs)).toBe(false)
  expect(isOverdue({ ...worn, children: 2 * childrenMax }, 1000)).toBe(true)
  expect(isOverdue(worn, 1000 + 2 * zygoteAgeMaxMs)).toBe(true)
})

test("the most recently used templates have one, never more than the limit, and the latest always", () => {
  fc.assert(
    fc.property(fc.array(fc.nat(10 * forgetZygoteAfterMs), { maxLength: 12 }), (lastWanted) => {
      const nowMs = Math.max(0, ...lastWanted) + 1000
      const targets = zygoteTargets(lastWanted, nowMs)
      const chosen = lastWanted.filter((_, index) => targets[index])
      const others = lastWanted.filter((_, index) => !targets[index])
      expect(targets).toHaveLength(lastWanted.length)
      expect(chosen.length).toBeLessThanOrEqual(zygotesMax)
      if (lastWanted.length > 0) expect(chosen).toContain(Math.max(...lastWanted))
      for (const other of others)
        expect(nowMs - other > forgetZygoteAfterMs || chosen.every((one) => one >= other)).toBe(true)
    }),
  )
})

test("attempts to make one rest longer after each failure, up to a limit", () => {
  const rests = Array.from({ length: 12 }, (_, index) => restAfterFailures(index + 1))
  expect(rests[0]).toBe(1000)
  expect(rests).toEqual(rests.toSorted((one, other) => one - other))
  expect(rests.at(-1)).toBe(600_000)
})
