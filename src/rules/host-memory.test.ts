/** Which starts the host has memory for, by example and for all numbers. */

import { expect, test } from "bun:test"
import fc from "fast-check"
import { bootedMib, clonedMib, hasRoom, restoredMib, shortMib, templateMib } from "./host-memory.ts"

const facts = { availableMib: 1000, promisedMib: 100, reserveMib: 512 }

test("what is needed fits beside the reserve and what is promised already, to the last megabyte", () => {
  expect(hasRoom(facts, 388)).toBe(true)
  expect(hasRoom(facts, 389)).toBe(false)
  expect(hasRoom(facts, 389, 511)).toBe(true)
})

test("without a reserve nothing is refused", () => {
  expect(hasRoom({ availableMib: 0, promisedMib: 9999, reserveMib: 0 }, 9999)).toBe(true)
})

test("however many start at once, what all of them take leaves the reserve", () => {
  const sizes = fc.array(fc.integer({ min: 1, max: 4096 }), { maxLength: 100 })
  fc.assert(
    fc.property(
      fc.nat(100_000),
      fc.integer({ min: 1, max: 4096 }),
      sizes,
      (availableMib, reserveMib, needed) => {
        let promisedMib = 0
        for (const mib of needed)
          if (hasRoom({ availableMib, promisedMib, reserveMib }, mib)) promisedMib += mib
        if (promisedMib > 0) expect(availableMib - promisedMib).toBeGreaterThanOrEqual(reserveMib)
      },
    ),
  )
})

test("the estimates are above what was measured, and far below a machine's full size", () => {
  for (const [memoryMib, measuredMib] of [
    [512, 172],
    [1024, 181],
    [4096, 311],
  ] as const) {
    expect(bootedMib(memoryMib)).toBeGreaterThan(measuredMib)
    expect(bootedMib(memoryMib)).toBeLessThan(memoryMib / 2)
  }
  expect(templateMib(512)).toBeGreaterThan(512)
  expect(clonedMib({})).toBeGreaterThan(28)
  expect(clonedMib({ programs: {} }) - clonedMib({})).toBeGreaterThanOrEqual(66)
  expect(restoredMib(80)).toBeGreaterThan(80 + 28)
})

test("memory is short before anything is refused", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 1_000_000 }), (reserveMib) => {
      const availableMib = shortMib(reserveMib)
      expect(hasRoom({ availableMib, promisedMib: 0, reserveMib }, reserveMib)).toBe(true)
    }),
  )
})
