/** When a client is too slow for an answer. */

import { expect, test } from "bun:test"
import { ReadPaceCheck } from "./read-pace.ts"

const pace = { windowMs: 1000, bytesMin: 100 }

test("a client that takes too little in one window is too slow, whatever it took before", () => {
  const check = new ReadPaceCheck(pace, { ms: 0, bytes: 50 })
  expect(check.isTooSlow({ ms: 1000, bytes: 50, isWaitedFor: true })).toBe(false)
  expect(check.isTooSlow({ ms: 1001, bytes: 100_000, isWaitedFor: true })).toBe(false)
  expect(check.isTooSlow({ ms: 2000, bytes: 100_000, isWaitedFor: true })).toBe(false)
  expect(check.isTooSlow({ ms: 2002, bytes: 100_099, isWaitedFor: true })).toBe(true)
})

test("a client that takes enough in each window is never too slow", () => {
  const check = new ReadPaceCheck(pace, { ms: 0, bytes: 0 })
  for (let at = 1; at < 20; at++)
    expect(check.isTooSlow({ ms: at * 1001, bytes: at * 100, isWaitedFor: true })).toBe(false)
})

test("a client that is kept waiting is not too slow", () => {
  const check = new ReadPaceCheck(pace, { ms: 0, bytes: 0 })
  expect(check.isTooSlow({ ms: 5000, bytes: 0, isWaitedFor: false })).toBe(false)
  expect(check.isTooSlow({ ms: 5500, bytes: 0, isWaitedFor: true })).toBe(false)
  expect(check.isTooSlow({ ms: 6001, bytes: 0, isWaitedFor: true })).toBe(true)
})
