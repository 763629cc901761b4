/** Which templates are given up, for all facts and by example. */

import { expect, test } from "bun:test"
import fc from "fast-check"
import { type TemplateFacts, templateGraceMs, templatesToRemove } from "./template-clean-up.ts"

const nowMs = 100 * templateGraceMs
const users = new Set(["a", "b"])
const facts = (id: string, mib: number, ageMs: number, isNeeded = false): TemplateFacts => ({
  id,
  mib,
  owner: null,
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
  expect(templatesToRemove(all, { budgetMib: 400, nowMs, users })).toEqual([])
  expect(templatesToRemove(all, { budgetMib: 350, nowMs, users })).toEqual(["older"])
  expect(templatesToRemove(all, { budgetMib: 0, nowMs, users })).toEqual(["older", "old"])
})

test("never one that is needed or was just used, and none when all fit", () => {
  const anyFacts = fc.record({
    id: fc.uuid(),
    mib: fc.nat(1000),
    owner: fc.constantFrom(null, "a", "b"),
    lastUsedMs: fc.nat(nowMs),
    isNeeded: fc.boolean(),
  })
  fc.assert(
    fc.property(fc.array(anyFacts), fc.nat(5000), (templates, budgetMib) => {
      const removed = new Set(templatesToRemove(templates, { budgetMib, nowMs, users }))
      for (const one of templates) {
        if (one.isNeeded || nowMs - one.lastUsedMs < templateGraceMs) expect(removed.has(one.id)).toBe(false)
      }
      const sum = templates.reduce((total, { mib }) => total + mib, 0)
      if (sum <= budgetMib) expect(removed.size).toBe(0)
    }),
  )
})

test("the account that takes the most gives way first, no shared template does, and those of nobody go in any case", () => {
  const of = (owner: string | null, one: TemplateFacts) => ({ ...one, owner })
  const all = [
    of(null, facts("shared", 100, 9 * templateGraceMs)),
    of("a", facts("a's only", 100, 9 * templateGraceMs)),
    of("b", facts("b's old", 100, 7 * templateGraceMs)),
    of("b", facts("b's newer", 100, 5 * templateGraceMs)),
    of("gone", facts("nobody's", 1, 2 * templateGraceMs)),
    of("gone", facts("under a copy", 1, 2 * templateGraceMs, true)),
  ]
  expect(templatesToRemove(all, { budgetMib: 500, nowMs, users })).toEqual(["nobody's"])
  expect(templatesToRemove(all, { budgetMib: 200, nowMs, users })).toEqual(["nobody's", "b's old"])
  expect(templatesToRemove(all, { budgetMib: 100, nowMs, users })).toEqual([
    "nobody's",
    "b's old",
    "a's only",
  ])
})
