/** The device state as a QEMU writes it that may write anything; this process stands in for it. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import {
  closeSync,
  mkdtempSync,
  openSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs"
import { join } from "node:path"
import { hostBootId, startTicks } from "../lib/process-identity.ts"
import { readTemplateState, saveDeviceState, savedFlags, savedStatePath } from "./device-state.ts"
import { stateBytesMax } from "./file-bounds.ts"

const process = { pid: globalThis.process.pid, startTicks: 0, bootId: hostBootId }
let directory: string
let held: number
beforeEach(() => {
  process.startTicks = startTicks(process.pid) ?? 0
  directory = mkdtempSync("/tmp/bhatti-state-")
  held = openSync(savedStatePath(directory), savedFlags, 0o600)
})
afterEach(() => {
  closeSync(held)
  rmSync(directory, { recursive: true, force: true })
})

const size = () => statSync(savedStatePath(directory))
const qemu = (write: () => void) => ({
  command: async () => {
    write()
    return {}
  },
})

test("each state is at the file's beginning, whatever was saved before, and takes no space when it is read", async () => {
  for (const word of ["first", "second"]) {
    const state = `QEVM ${word} ${"x".repeat(100_000)}`
    const saved = await saveDeviceState(
      { process, directory },
      qemu(() => writeSync(held, state)),
    )
    expect(Buffer.from(saved).toString()).toBe(state)
    expect(size().size).toBe(state.length)
    expect(size().blocks).toBe(0)
  }
})

test("more than a device state can be is not read, and its space is given back", async () => {
  const flood = qemu(() => {
    writeSync(held, `QEVM ${"x".repeat(100_000)}`)
    truncateSync(savedStatePath(directory), 2 ** 40)
  })
  await expect(saveDeviceState({ process, directory }, flood)).rejects.toThrow("more than a device state")
  expect(size().blocks).toBe(0)

  const exact = qemu(() => {
    writeSync(held, "QEVM")
    truncateSync(savedStatePath(directory), stateBytesMax)
  })
  expect((await saveDeviceState({ process, directory }, exact)).length).toBe(stateBytesMax)
})

test("something else than a state is none", async () => {
  const saved = saveDeviceState(
    { process, directory },
    qemu(() => writeSync(held, "other words")),
  )
  await expect(saved).rejects.toThrow("QEMU saved no device state")
})

test("a QEMU that holds no such file any more has its state read from where it wrote it", async () => {
  const zeros = Buffer.alloc(5000)
  writeSync(held, zeros)
  const other = { ...process, pid: 2 ** 22 }
  const saved = await saveDeviceState(
    { process: other, directory },
    qemu(() => writeSync(held, "QEVM state")),
  )
  expect(Buffer.from(saved).toString()).toBe("QEVM state")
})

test("of a template, more than a device state can be is not read, and something else is not taken", async () => {
  const path = join(directory, "state")
  writeFileSync(path, "QEVM1")
  expect(Buffer.from(await readTemplateState(path)).toString()).toBe("QEVM1")
  truncateSync(path, stateBytesMax + 1)
  await expect(readTemplateState(path)).rejects.toThrow("QEMU wrote more than a device state")
  for (const text of ["", "QEV", "no QEVM"]) {
    writeFileSync(path, text)
    await expect(readTemplateState(path)).rejects.toThrow("QEMU saved no device state")
  }
})
