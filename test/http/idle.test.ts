/**
 * Work inside a sandbox, told by what its machine uses on the host, on a fake host with times of the test's
 * own.
 */

import { afterEach, beforeEach, expect, test } from "bun:test"
import type { SandboxRecord } from "../../src/store/sandboxes.ts"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"

let own: HttpApp
let record: SandboxRecord
const startMs = 1_000_000
beforeEach(async () => {
  own = await openHttpApp()
  await own.call("POST", "/sandboxes", { name: "dev" })
  const [only] = await own.core.store.sandboxes.listOnHost()
  if (!only) throw new Error("no sandbox")
  record = only
  own.core.thermal.facts(record, startMs)
})
afterEach(() => own[Symbol.asyncDispose]())

const decide = (afterMs: number) => own.core.thermal.explain(record, startMs + afterMs)

test("one that uses next to nothing is paused", () => {
  own.host.cpuMsNow += 20
  own.host.trafficNow = { disk: 4096, network: 200 }
  decide(2000)
  expect(decide(31_000)).toMatchObject({ action: "pause", keepsAwake: [] })
})

test.each([
  ["it computes", { cpuMs: 1000, disk: 0, network: 0 }],
  ["it reads or writes its disk", { cpuMs: 0, disk: 10_000_000, network: 0 }],
  ["it uses the network", { cpuMs: 0, disk: 0, network: 1_000_000 }],
])("%s: it stays hot, and why says so", (what, perTick) => {
  for (let afterMs = 2000; afterMs <= 60_000; afterMs += 2000) {
    const { disk, network } = own.host.trafficNow
    own.host.cpuMsNow += perTick.cpuMs
    own.host.trafficNow = { disk: disk + perTick.disk, network: network + perTick.network }
    decide(afterMs)
  }
  expect(decide(60_500)).toMatchObject({
    action: "stay",
    reason: "something works inside it",
    keepsAwake: [`work inside it: ${what}`],
  })
  expect(decide(90_500)).toMatchObject({ action: "pause" })
})

/** A tick of the loop at that time, and what it sets off. */
async function tickAt(nowMs: number): Promise<string | undefined> {
  own.core.clock = { ...own.core.clock, nowMs: () => nowMs }
  await own.core.thermal.tick(nowMs)
  await own.core.turns.take(record.id, async () => undefined)
  return (await own.core.store.sandboxes.get(record.id))?.state.kind
}

test("its guest is asked for its next timer before it is paused: one that is due soon keeps it hot until then", async () => {
  own.host.nextTimerMs = 59_000
  expect(await tickAt(startMs + 31_000)).toBe("hot")
  expect(own.host.pauses).toBe(0)
  expect(decide(32_000)).toMatchObject({ action: "stay", keepsAwake: ["a timer inside it: due in 58 s"] })

  // When a timer has come, that was work.
  own.host.nextTimerMs = 61_000
  expect(await tickAt(startMs + 91_000)).toBe("hot")
  expect(decide(91_000)).toMatchObject({ action: "stay", keepsAwake: ["work inside it: a timer"] })
  expect(await tickAt(startMs + 119_000)).toBe("hot")
  expect(await tickAt(startMs + 121_000)).toBe("hot")
  expect(await tickAt(startMs + 123_000)).toBe("warm")
})

test("a guest without a timer is asked a second time: between two timers a program works, and has none", async () => {
  expect(await tickAt(startMs + 31_000)).toBe("hot")
  own.host.nextTimerMs = 20_000
  expect(await tickAt(startMs + 33_000)).toBe("hot")
  expect(decide(34_000)).toMatchObject({ action: "stay", keepsAwake: ["a timer inside it: due in 19 s"] })
})

test("a guest with many threads computes for its answer: that is no work of a program", async () => {
  own.host.nextTimerCpuMs = 500
  expect(await tickAt(startMs + 31_000)).toBe("hot")
  expect(await tickAt(startMs + 33_000)).toBe("warm")
})

test("a guest that cannot say when its next timer is due is paused", async () => {
  own.host.nextTimerMs = undefined
  expect(await tickAt(startMs + 31_000)).toBe("warm")
})
