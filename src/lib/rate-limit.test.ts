/** Properties of the token buckets. */

import { expect, test } from "bun:test"
import fc from "fast-check"
import { RateLimiter, takeToken } from "./rate-limit.ts"

const rate = fc.record({
  burst: fc.integer({ min: 1, max: 50 }),
  perMinute: fc.integer({ min: 1, max: 6000 }),
})

test("no key ever gets more than its burst and what time brings, whatever the others do and the table forgets", () => {
  const request = fc.record({
    key: fc.integer({ min: 0, max: 8 }),
    waitMs: fc.integer({ min: 0, max: 5000 }),
  })
  fc.assert(
    fc.property(
      rate,
      fc.integer({ min: 1, max: 4 }),
      fc.array(request, { maxLength: 300 }),
      (one, bucketsMax, all) => {
        const limiter = new RateLimiter(one, { bucketsMax })
        const allowed = new Map<number, number>()
        let nowMs = 0
        for (const { key, waitMs } of all) {
          nowMs += waitMs
          const before = limiter.size
          if (limiter.take(`${key}`, nowMs).kind === "allowed") allowed.set(key, (allowed.get(key) ?? 0) + 1)
          expect(limiter.size).toBeLessThanOrEqual(Math.max(bucketsMax, before))
          // Twice: a key may also have used the bucket that keys outside the table share.
          const most = 2 * (one.burst + (nowMs * one.perMinute) / 60_000)
          expect(allowed.get(key) ?? 0).toBeLessThanOrEqual(most + 1e-6)
        }
      },
    ),
  )
})

test("whoever waits as long as it is told is allowed", () => {
  fc.assert(
    fc.property(rate, fc.integer({ min: 1, max: 200 }), (one, count) => {
      let bucket: ReturnType<typeof takeToken>["bucket"] | undefined
      let nowMs = 0
      for (let i = 0; i < count; i++) {
        const taken = takeToken(bucket, one, nowMs)
        bucket = taken.bucket
        if (taken.decision.kind === "allowed") continue
        nowMs += Math.ceil(taken.decision.retryAfterMs) + 1
        const again = takeToken(bucket, one, nowMs)
        expect(again.decision.kind).toBe("allowed")
        bucket = again.bucket
      }
    }),
  )
})

test("a clock that goes back gives nothing away", () => {
  fc.assert(
    fc.property(rate, fc.array(fc.integer({ min: 0, max: 10_000 }), { maxLength: 100 }), (one, times) => {
      let bucket: ReturnType<typeof takeToken>["bucket"] | undefined
      let allowed = 0
      for (const nowMs of times) {
        const taken = takeToken(bucket, one, nowMs)
        bucket = taken.bucket
        if (taken.decision.kind === "allowed") allowed++
      }
      const lastMs = Math.max(0, ...times)
      expect(allowed).toBeLessThanOrEqual(one.burst + (lastMs * one.perMinute) / 60_000 + 1e-6)
    }),
  )
})

test("a full table drops what is full again, and until then newcomers share one bucket", () => {
  const limiter = new RateLimiter({ burst: 2, perMinute: 60 }, { bucketsMax: 2 })
  for (const key of ["a", "b", "c", "d"]) expect(limiter.take(key, 0).kind).toBe("allowed")
  expect(limiter.take("e", 0)).toMatchObject({ kind: "refused" })
  expect(limiter.take("a", 0).kind).toBe("allowed")
  expect(limiter.size).toBe(2)
  for (const key of ["e", "f"]) expect(limiter.take(key, 5000).kind).toBe("allowed")
  expect(limiter.size).toBe(2)
})
