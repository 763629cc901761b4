/** How large the pool is, by demand and memory. */

import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import {
  burstGapMs,
  type Demand,
  forgetPeakAfterMs,
  forgetSizeAfterMs,
  pooledMib,
  poolTargets,
  wantedOnceMore,
} from "./pool.ts"

const roomy = { sizeMax: 50, memoryMibMax: 100_000 }

function creates(times: number[]): Demand {
  let demand: Demand | undefined
  for (const at of times) demand = wantedOnceMore(demand, at)
  return demand ?? { burst: 0, peak: 0, lastAtMs: 0 }
}

describe("demand", () => {
  test("creates in quick succession are one burst, and its size is remembered", () => {
    const burst = creates(Array.from({ length: 20 }, (_, index) => index * 10))
    expect(burst).toMatchObject({ burst: 20, peak: 20 })
    const later = wantedOnceMore(burst, burst.lastAtMs + burstGapMs + 1)
    expect(later).toMatchObject({ burst: 1, peak: 20 })
  })

  test("a burst long ago is forgotten", () => {
    const burst = creates(Array.from({ length: 20 }, () => 0))
    expect(wantedOnceMore(burst, forgetPeakAfterMs + 1)).toMatchObject({ burst: 1, peak: 1 })
    expect(poolTargets([burst], roomy, forgetPeakAfterMs + 1)).toEqual([2])
  })
})

describe("the pool", () => {
  test("keeps two of a size that is in use, and as many as a burst had", () => {
    expect(poolTargets([creates([0])], roomy, 0)).toEqual([2])
    expect(poolTargets([creates([0, 1, 2, 3, 4])], roomy, 5)).toEqual([5])
    expect(poolTargets([creates([0, 1, 2, 3, 4])], { ...roomy, sizeMax: 3 }, 5)).toEqual([3])
    expect(poolTargets([creates([0])], { ...roomy, sizeMax: 0 }, 0)).toEqual([0])
  })

  test("keeps nothing of a size nobody wanted for long, but always the last one's", () => {
    const now = 2 * forgetSizeAfterMs
    expect(poolTargets([creates([0]), creates([1])], roomy, now)).toEqual([0, 2])
    expect(poolTargets([creates([now - forgetSizeAfterMs]), creates([now])], roomy, now)).toEqual([2, 2])
  })

  test("gives memory first to what was wanted last", () => {
    const settings = { sizeMax: 10, memoryMibMax: 3 * pooledMib }
    expect(poolTargets([creates([0]), creates([1])], settings, 2)).toEqual([1, 2])
  })

  test("never uses more memory than it may, nor more of a size", () => {
    const demands = fc.array(
      fc.record({ burst: fc.nat(200), peak: fc.nat(200), lastAtMs: fc.nat(forgetSizeAfterMs * 2) }),
    )
    fc.assert(
      fc.property(demands, fc.nat(30), fc.nat(2000), (demands, sizeMax, memoryMibMax) => {
        const targets = poolTargets(demands, { sizeMax, memoryMibMax }, forgetSizeAfterMs * 2)
        expect(targets).toHaveLength(demands.length)
        expect(targets.every((target) => target >= 0 && target <= sizeMax)).toBe(true)
        expect(targets.reduce((sum, target) => sum + target * pooledMib, 0)).toBeLessThanOrEqual(memoryMibMax)
      }),
    )
  })
})
