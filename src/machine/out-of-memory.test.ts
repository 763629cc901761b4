/** The kernel's log about a process that was killed. */

import { expect, test } from "bun:test"
import { wasKilledForMemory } from "./out-of-memory.ts"

const log = `[    0.000000] Linux version 6.1.0
[  532.462486] Out of memory: Killed process 4242 (qemu-system-x86) total-vm:1200kB, UID:700001 oom_score_adj:500
[  600.100000] Memory cgroup out of memory: Killed process 77 (qemu-system-x86) total-vm:1200kB
[  601.000000] oom_reaper: reaped process 78 (qemu-system-x86)
`
const machine = (pid: number, startSec: number) => ({ pid, startTicks: startSec * 100 + 99, bootId: "b" })

test("the one that was killed for memory is known, by the host or by its group", () => {
  expect(wasKilledForMemory(log, machine(4242, 532))).toBe(true)
  expect(wasKilledForMemory(log, machine(77, 10))).toBe(true)
})

test("another is not: one not named, or a younger one that got the same pid", () => {
  expect(wasKilledForMemory(log, machine(78, 10))).toBe(false)
  expect(wasKilledForMemory(log, machine(424, 10))).toBe(false)
  expect(wasKilledForMemory(log, machine(4242, 533))).toBe(false)
})
