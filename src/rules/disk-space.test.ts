/** Which sandboxes are held when disk space runs out, and when the next look is. */

import { expect, test } from "bun:test"
import { type DiskFacts, decideSpace, hasSpace, spaceWaitMs } from "./disk-space.ts"

const disk = (id: string, facts: Partial<DiskFacts> = {}): DiskFacts => ({
  id,
  grewMib: 0,
  grewSinceShortMib: 0,
  heldSinceMs: null,
  ...facts,
})

test("while there is more than the reserve nobody is held, however fast a disk grows", () => {
  const disks = [disk("a", { grewMib: 500, grewSinceShortMib: 500 })]
  expect(decideSpace({ freeMib: 1024, reserveMib: 1024, disks })).toEqual({ hold: [], release: [] })
})

test.each([
  ["grew since the last look", { grewMib: 1 }, 1000, true],
  ["grew by a little since space is short", { grewMib: 0.1, grewSinceShortMib: 3 }, 1000, false],
  ["grew by more than a little since space is short", { grewMib: 0.1, grewSinceShortMib: 4 }, 1000, true],
  ["grows at all when half of the reserve is used up", { grewMib: 0.1 }, 500, true],
  ["does not grow when half of the reserve is used up", {}, 500, false],
  ["grew, but is held already", { grewMib: 5, heldSinceMs: 1 }, 1000, false],
])("below the reserve, one that %s", (_what, facts, freeMib, isHeld) => {
  const { hold, release } = decideSpace({ freeMib, reserveMib: 1024, disks: [disk("a", facts)] })
  expect([hold, release]).toEqual([isHeld ? ["a"] : [], []])
})

test("those held go on as far as there is room for each, the longest held first", () => {
  const disks = [
    disk("late", { heldSinceMs: 30 }),
    disk("first", { heldSinceMs: 10 }),
    disk("second", { heldSinceMs: 20 }),
  ]
  const release = (freeMib: number) => decideSpace({ freeMib, reserveMib: 1024, disks }).release
  expect(release(1024 + 127)).toEqual([])
  expect(release(1024 + 128)).toEqual(["first"])
  expect(release(1024 + 300)).toEqual(["first", "second"])
  expect(release(9000)).toEqual(["first", "second", "late"])
})

test("without a reserve nobody is held before the disk is full, and those that QEMU has stopped go on when there is some room", () => {
  const writer = disk("a", { grewMib: 100, grewSinceShortMib: 100 })
  expect(decideSpace({ freeMib: 0, reserveMib: 0, disks: [writer] }).hold).toEqual([])
  const stopped = disk("a", { heldSinceMs: 1 })
  expect(decideSpace({ freeMib: 31, reserveMib: 0, disks: [stopped] }).release).toEqual([])
  expect(decideSpace({ freeMib: 32, reserveMib: 0, disks: [stopped] }).release).toEqual(["a"])
  expect([hasSpace({ freeMib: 31, reserveMib: 0 }), hasSpace({ freeMib: 32, reserveMib: 0 })]).toEqual([
    false,
    true,
  ])
})

test("the nearer the reserve, the sooner the next look", () => {
  const waits = [100_000, 3000, 1500, 1100, 1000, 0].map((freeMib) =>
    spaceWaitMs({ freeMib, reserveMib: 1024 }),
  )
  expect(waits).toEqual([2000, 988, 238, 100, 200, 200])
})
