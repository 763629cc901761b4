/** Signals to a command that is slow to end, or has not begun. Processes and terminals are in test/cli. */

import { expect, test } from "bun:test"
import type { SignalName } from "@bhatti/contract/exec"
import { Interrupts } from "./interrupts.ts"

function interrupted(options: { hasStarted: boolean; isAtKeys: boolean; graceMs: number }) {
  const sent: SignalName[] = []
  const told: string[] = []
  const run = { hasStarted: options.hasStarted, signal: (signal: SignalName) => void sent.push(signal) }
  const interrupts = new Interrupts(run, {
    isAtKeys: async () => options.isAtKeys,
    tell: (words) => void told.push(words),
    times: { noticeMs: 1, graceMs: options.graceMs, killMs: 1 },
  })
  return { interrupts, sent, told }
}

test("where nobody can press Ctrl-C again, a command that does not end in time is killed", async () => {
  for (const [signal, exitCode] of [
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const) {
    const { interrupts, sent, told } = interrupted({ hasStarted: true, isAtKeys: false, graceMs: 2 })
    using _ = interrupts
    process.emit(signal)
    await interrupts.gaveUp
    expect(interrupts.exitCode).toBe(exitCode)
    expect(sent as string[]).toEqual([signal.slice(3), "KILL"])
    expect(told).toEqual([`the command was killed: it had not ended 0.002 s after ${signal}`])
  }
})

test("before it has started, a command is left at once and sent nothing", async () => {
  const { interrupts, sent } = interrupted({ hasStarted: false, isAtKeys: true, graceMs: 1 })
  using _ = interrupts
  process.emit("SIGINT")
  await interrupts.gaveUp
  expect([interrupts.exitCode, sent]).toEqual([130, []])
})
