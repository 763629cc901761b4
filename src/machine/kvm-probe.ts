/**
 * Boots a guest under KVM and waits for its first output. QEMU starts exactly as for a machine: by the launcher, in
 * the jail, as a machine's user, with the same device node, groups, control group and system call filter. So the
 * result holds for machines.
 */

import { closeSync, openSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { z } from "zod"
import { unlessMissing } from "../lib/missing-files.ts"
import { parseJson } from "../lib/parse-json.ts"
import { hostBootId, isAlive, type ProcessIdentity, startTicks } from "../lib/process-identity.ts"
import { probeArguments } from "./command-line.ts"
import { type Confinement, killProcess, launch } from "./process.ts"

/** The agent prints this when booted with `bhatti.probe`; must equal answerProbe in agent/boot.go. */
const probeWords = "bhatti-probe-ok"
const killDeadlineMs = 10_000
const roundMs = 10
/** However much a guest prints, the probe gives up after this many times the longest silence. */
const silencesMax = 24
/** Limit on its last output in a reason. */
const tailLength = 160

export type ProbeResult = { problem: string | undefined; ms: number }

export async function probeKvm(options: {
  binary: string
  kernel: { vmlinux: string; initramfs: string }
  confinement: Confinement
  /** Directory for the console and for files that a killed daemon leaves. */
  directory: string
  /** How long a guest may stay silent. */
  silenceMaxMs: number
}): Promise<ProbeResult> {
  const { directory } = options
  const startedMs = performance.now()
  const logPath = join(directory, "kvm-probe.log")
  const leftPath = join(directory, "kvm-probe.pid")
  await endLeft(leftPath)
  rmSync(logPath, { force: true })
  const result = (problem?: string) => ({ problem, ms: Math.round(performance.now() - startedMs) })
  let process: ProcessIdentity | undefined
  try {
    process = await startProbe(options, logPath)
    if (process !== undefined) writeFileSync(leftPath, JSON.stringify(process), { mode: 0o600 })
    return result(await waitForBoot(process, { logPath, silenceMaxMs: options.silenceMaxMs }))
  } catch (error) {
    if (!(error instanceof AppError)) throw error
    return result(error.message)
  } finally {
    if (process !== undefined) await killProcess(process, { deadlineMs: killDeadlineMs })
    for (const path of [logPath, leftPath]) rmSync(path, { force: true })
  }
}

/** Returns undefined if the process has already exited. */
async function startProbe(
  { binary, kernel, confinement }: Parameters<typeof probeKvm>[0],
  logPath: string,
): Promise<ProcessIdentity | undefined> {
  const files = [kernel.vmlinux, kernel.initramfs].map((path) => openSync(path, "r"))
  const [vmlinux = -1, initramfs = -1] = files
  const output = openSync(logPath, "a", 0o600)
  try {
    const pid = await launch({
      binary,
      arguments: probeArguments(),
      files: { kernel: vmlinux, initramfs },
      confinement,
      output,
    })
    const ticks = startTicks(pid)
    return ticks === undefined ? undefined : { pid, startTicks: ticks, bootId: hostBootId }
  } finally {
    for (const fd of [...files, output]) closeSync(fd)
  }
}

/** Output from the guest restarts the timeout, so that a slow host is not mistaken for a broken one. */
async function waitForBoot(
  process: ProcessIdentity | undefined,
  { logPath, silenceMaxMs }: { logPath: string; silenceMaxMs: number },
): Promise<string | undefined> {
  const startedMs = performance.now()
  let heardMs = startedMs
  let heard = 0
  for (;;) {
    // Checked before the console is read, so that its last output is not missed.
    const lives = process !== undefined && isAlive(process)
    const { size } = statSync(logPath)
    if (size > heard) {
      const text = readFileSync(logPath, "latin1")
      if (text.includes(probeWords)) return undefined
      heard = size
      heardMs = performance.now()
    }
    const nowMs = performance.now()
    const last = lastWords(logPath)
    if (!lives) return `QEMU says: ${last === "" ? "nothing, and ends" : last}`
    if (nowMs - heardMs > silenceMaxMs || nowMs - startedMs > silenceMaxMs * silencesMax) {
      const silence = `${seconds(nowMs - heardMs)} s of silence, ${seconds(nowMs - startedMs)} s in all`
      return `a guest under it did not start: ${silence}, kvm_probe_seconds is ${silenceMaxMs / 1000}${last === "" ? "" : `; last words: ${last}`}`
    }
    await Bun.sleep(roundMs)
  }
}

function seconds(ms: number): string {
  return (ms / 1000).toFixed(1)
}

function lastWords(logPath: string): string {
  const line = readFileSync(logPath, "latin1").trim().split("\n").at(-1) ?? ""
  return line.replace(/[^\x20-\x7e]/g, "").slice(0, tailLength)
}

const Left = z.object({ pid: z.int(), startTicks: z.int(), bootId: z.string() })

/** A hung guest outlives a daemon that was killed meanwhile. */
async function endLeft(path: string): Promise<void> {
  const text = unlessMissing(() => readFileSync(path, "utf8"))
  if (text === undefined) return
  const left = Left.safeParse(parseJson(text))
  if (left.success) await killProcess(left.data, { deadlineMs: killDeadlineMs })
}
