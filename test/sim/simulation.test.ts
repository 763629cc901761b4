/**
 * Crash safety, proven by simulation. `SEED=7 bun test test/sim` repeats one run, `SIM_SEEDS=1000 SIM_STEPS=5000` makes
 * more and longer ones, `SIM_TRACE=5000` shows more of what led to a failure.
 */

import { expect, test } from "bun:test"
import { Simulation } from "./simulation.ts"

const seed = process.env["SEED"]
const seeds = seed === undefined ? Number(process.env["SIM_SEEDS"] ?? 40) : 1
const firstSeed = seed === undefined ? 1 : Number(seed)
const steps = Number(process.env["SIM_STEPS"] ?? 1500)

test("whatever fails and wherever the daemon dies, no sandbox is lost, doubled, mixed up or left over", async () => {
  const counts: Record<string, number> = {}
  for (let one = firstSeed; one < firstSeed + seeds; one++) {
    const simulation = new Simulation(one)
    try {
      await simulation.run(steps)
    } catch (error) {
      throw new Error(`repeat with SEED=${one} SIM_STEPS=${steps}`, { cause: error })
    }
    for (const [what, count] of Object.entries(simulation.counts)) counts[what] = (counts[what] ?? 0) + count
  }
  if (seed !== undefined) return
  // A simulation in which nothing happens would prove nothing.
  for (const what of [
    "done",
    "crash",
    "fault",
    "machine dies",
    "machine hangs",
    "memory lost",
    "refused for now",
    "forced",
    "fork",
    "storm",
    "machine forked",
    "lifetime ended",
  ]) {
    expect([what, (counts[what] ?? 0) > 20]).toEqual([what, true])
  }
  expect(counts["fork failed"]).toBeGreaterThan(0)
}, 600_000)

test("a seed repeats its run, step by step", async () => {
  const [one, other] = [new Simulation(11), new Simulation(11)]
  await one.run(1000)
  await other.run(1000)
  // Ids are random; nothing may depend on them.
  const told = (simulation: Simulation) =>
    simulation.trace.map((line) => line.replaceAll(/sb_[0-9a-f]+/g, "ID"))
  expect(told(one).length).toBeGreaterThan(100)
  expect(told(one)).toEqual(told(other))
}, 60_000)
