/** Which templates are given up, for all facts and by example. */

import { expect, test } from "bun:test"
import fc from "fast-check"
import { type TemplateFacts, templateGraceMs, templatesToRemove } from "./template-clean-up.ts"

const nowMs = 100 * templateGraceMs
const facts = (id: string, mib: number, ageMs: number, isNeeded = false): TemplateFacts => ({
  id,
  mib,
  lastUsedMs: nowMs - ageMs,
  isNeeded,
})

test("longest unused first, and no more than needed to fit", () => {
  const all = [
    facts("old", 100, 5 * templateGraceMs),
    facts("needed", 100, 9 * templateGraceMs, true),
    facts("older", 100, 7 * templateGraceMs),
    facts("just used", 100, 1000),
  ]
  expect(templatesToRemove(all, { budgetMib: 400, nowMs })).toEqual([])
  expect(templatesToRemove(all, { budgetMib: 350, nowMs })).toEqual(["older"])
  expect(templatesToRemove(all, { budgetMib: 0, nowMs })).toEqual(["older", "old"])
})

test("never one that is needed or was just used, and none when all fit", () => {
  const anyFacts = fc.record({
    id: fc.uuid(),
    mib: fc.nat(1000),
    lastUsedMs: fc.nat(nowMs),
    isNeeded: fc.boolean(),
  })
  fc.assert(
    fc.property(fc.array(anyFacts), fc.nat(5000), (templates, budgetMib) => {
      const removed = new Set(templatesToRemove(templates, { budgetMib, nowMs }))
      for (const one of templates) {
        if (one.isNeeded || nowMs - one.lastUsedMs < templateGraceMs) expect(removed.has(one.id)).toBe(false)
      }
      const sum = templates.reduce((total, { mib }) => total + mib, 0)
      if (sum <= budgetMib) expect(removed.size).toBe(0)
    }),
  )
})
