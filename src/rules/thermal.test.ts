/** The thermal rule for all facts, and by example. */

import { expect, test } from "bun:test"
import fc from "fast-check"
import { decideThermal, guestWork, type ThermalFacts } from "./thermal.ts"

const settings = { warmAfterMs: 30_000, coldAfterMs: 1_800_000, timerWindowMs: 60_000 }
const idle: ThermalFacts = {
  state: "hot",
  keepHot: false,
  allowCold: true,
  warmAfterMs: null,
  coldAfterMs: null,
  guestWork: "it computes",
  openStreams: 0,
  unaskedForMs: 60_000,
  isReconnected: false,
  guestIdleForMs: 60_000,
  timerDueInMs: null,
  warmForMs: 0,
  isMemoryShort: false,
}
const anyFacts = fc.record<ThermalFacts>({
  state: fc.constantFrom("hot", "warm"),
  keepHot: fc.boolean(),
  allowCold: fc.boolean(),
  warmAfterMs: fc.constantFrom(null, 1000, 100_000),
  coldAfterMs: fc.constantFrom(null, 1000, 100_000),
  guestWork: fc.constant("it computes"),
  openStreams: fc.nat(3),
  unaskedForMs: fc.nat(4_000_000),
  isReconnected: fc.boolean(),
  guestIdleForMs: fc.nat(4_000_000),
  timerDueInMs: fc.constantFrom(null, 0, 60_000, 60_001),
  warmForMs: fc.nat(4_000_000),
  isMemoryShort: fc.boolean(),
})

test("an idle sandbox is paused, one that was paused for long is saved", () => {
  expect(decideThermal(idle, settings).action).toBe("pause")
  expect(decideThermal({ ...idle, state: "warm", warmForMs: 1_800_000 }, settings).action).toBe("save")
})

test("a connected client, recent requests and work inside each keep it hot", () => {
  expect(decideThermal({ ...idle, openStreams: 1 }, settings).action).toBe("stay")
  expect(decideThermal({ ...idle, unaskedForMs: 1000 }, settings)).toMatchObject({
    action: "stay",
    changesInMs: 29_000,
  })
  expect(decideThermal({ ...idle, guestIdleForMs: 1000 }, settings)).toMatchObject({
    action: "stay",
    changesInMs: 29_000,
  })
})

test("a timer inside that is due within the window keeps it hot, unless the host is short of memory", () => {
  const waiting = { ...idle, timerDueInMs: 60_000 }
  expect(decideThermal(waiting, settings)).toMatchObject({
    action: "stay",
    reason: "a program inside it waits for a timer that is due soon",
    keepsAwake: ["a timer inside it: due in 60 s"],
  })
  expect(decideThermal({ ...waiting, timerDueInMs: 60_001 }, settings).action).toBe("pause")
  expect(decideThermal({ ...waiting, isMemoryShort: true }, settings)).toMatchObject({
    action: "pause",
    keepsAwake: [],
  })
  expect(decideThermal(waiting, { ...settings, timerWindowMs: 0 }).action).toBe("pause")
  expect(decideThermal({ ...waiting, timerDueInMs: 0 }, { ...settings, timerWindowMs: 0 }).action).toBe(
    "pause",
  )
})

test("only a hot one is paused, only a warm one is saved", () => {
  fc.assert(
    fc.property(anyFacts, (facts) => {
      const { action } = decideThermal(facts, settings)
      if (action === "pause") expect(facts.state).toBe("hot")
      if (action === "save") expect(facts.state).toBe("warm")
    }),
  )
})

test("what must stay hot or must not go cold never does", () => {
  fc.assert(
    fc.property(anyFacts, (facts) => {
      const { action } = decideThermal(facts, settings)
      if (facts.keepHot) expect(action).not.toBe("pause")
      if (!facts.allowCold) expect(action).not.toBe("save")
      const never = { ...facts, warmAfterMs: null, coldAfterMs: null }
      expect(decideThermal(never, { warmAfterMs: 0, coldAfterMs: 0, timerWindowMs: 60_000 }).action).toBe(
        "stay",
      )
      expect(decideThermal({ ...facts, warmAfterMs: 0, coldAfterMs: 0 }, settings).action).toBe("stay")
    }),
  )
})

test("times of its own go before the host's", () => {
  const soon = { ...idle, unaskedForMs: 5000, guestIdleForMs: 5000, warmAfterMs: 4000 }
  expect(decideThermal(soon, settings).action).toBe("pause")
  expect(decideThermal({ ...idle, warmAfterMs: 90_000 }, settings)).toMatchObject({
    action: "stay",
    changesInMs: 30_000,
  })
  expect(decideThermal({ ...idle, warmAfterMs: 0 }, settings).reason).toBe("it is set not to be paused")
  const warm = { ...idle, state: "warm" as const, warmForMs: 10_000 }
  expect(decideThermal({ ...warm, coldAfterMs: 10_000 }, settings).action).toBe("save")
})

test("on a host that is short of memory whatever may go cold goes at once, and nothing else changes", () => {
  const short = { ...idle, state: "warm" as const, isMemoryShort: true }
  expect(decideThermal(short, settings)).toMatchObject({
    action: "save",
    reason: "the host is short of memory",
  })
  fc.assert(
    fc.property(anyFacts, (facts) => {
      // A timer does not count then.
      const plenty = decideThermal({ ...facts, isMemoryShort: false, timerDueInMs: null }, settings)
      const { action } = decideThermal({ ...facts, isMemoryShort: true }, settings)
      const goesCold = facts.state === "warm" && plenty.changesInMs !== null
      expect(action).toBe(goesCold ? "save" : plenty.action)
    }),
  )
})

test("everything that keeps it awake is said, not only the first", () => {
  const facts = { ...idle, keepHot: true, openStreams: 2, guestIdleForMs: 0 }
  expect(decideThermal(facts, settings).keepsAwake).toEqual([
    "it is set to be kept hot",
    "open commands, sessions, transfers or connections: 2",
    "work inside it: it computes",
  ])
  expect(decideThermal(idle, settings).keepsAwake).toEqual([])
})

test("processor, disk and network each count as work, and an idle guest's little of each does not", () => {
  const idleUse = { elapsedMs: 2000, cpuMs: 30, diskBytes: 8192, networkBytes: 500 }
  expect(guestWork(idleUse)).toBeUndefined()
  expect(guestWork({ ...idleUse, cpuMs: 200 })).toBe("it computes")
  expect(guestWork({ ...idleUse, diskBytes: 1_000_000 })).toBe("it reads or writes its disk")
  expect(guestWork({ ...idleUse, networkBytes: 100_000 })).toBe("it uses the network")
})

test("when nothing happens, the change comes exactly when it was announced", () => {
  fc.assert(
    fc.property(anyFacts, (facts) => {
      const { changesInMs } = decideThermal(facts, settings)
      if (changesInMs === null) return
      const later = (ms: number): ThermalFacts => ({
        ...facts,
        unaskedForMs: facts.unaskedForMs + ms,
        guestIdleForMs: facts.guestIdleForMs + ms,
        warmForMs: facts.warmForMs + ms,
      })
      expect(decideThermal(later(changesInMs), settings).action).not.toBe("stay")
      expect(decideThermal(later(changesInMs - 1), settings).action).toBe("stay")
    }),
  )
})
