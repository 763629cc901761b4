/**
 * How a machine ended, if its guest ended it. Its QEMU pauses then instead of exiting, so that the daemon can ask
 * for the reason and keep the last lines of the guest's console. Both are written beside the disk before QEMU is
 * ended: one small file per sandbox, which the next end replaces.
 */

import { readFile, rename, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { z } from "zod"
import { whenMissing } from "../lib/missing-files.ts"
import { parseJson } from "../lib/parse-json.ts"
import type { ProcessIdentity } from "../lib/process-identity.ts"
import { consoleRingBytes } from "./command-line.ts"
import type { Qmp } from "./qmp.ts"

const deadline = { deadlineMs: 5000 }
/** Limit on kept console text; a panic's report with its call trace is about 4 KB. */
const keptCharacters = 16_384

const GuestEnd = z.object({
  process: z.object({ pid: z.int(), startTicks: z.int(), bootId: z.string() }),
  how: z.enum(["poweroff", "reboot", "panic", "agent", "init"]),
  console: z.string(),
})
export type GuestEnd = z.infer<typeof GuestEnd>

const Status = z.object({ status: z.string() })

/**
 * Makes QEMU pause when its guest ends. Records the end and calls `onEnd` once, although QEMU may report an end
 * both by an event and when queried. Returns true if the guest has already ended.
 */
export async function watchEnd(
  machine: { process: ProcessIdentity; directory: string },
  monitor: Qmp,
  onEnd: () => Promise<void>,
): Promise<boolean> {
  let ending: Promise<void> | undefined
  const end = async (reason: string | undefined) => {
    try {
      await keepEnd(machine, monitor, reason)
    } catch {
      // An unknown reason is better than a machine that stays paused for ever.
    }
    await onEnd()
  }
  monitor.onShutdown = (reason) => {
    ending ??= end(reason)
  }
  if (!(await awaitEnd(monitor))) return false
  ending ??= end(undefined)
  await ending
  return true
}

/** Returns true if the guest has already ended. A QEMU that refuses exits at its guest's end, as before. */
async function awaitEnd(monitor: Qmp): Promise<boolean> {
  try {
    await monitor.command("set-action", { shutdown: "pause" }, deadline)
    const status = Status.safeParse(await monitor.command("query-status", {}, deadline))
    return status.success && status.data.status === "shutdown"
  } catch (error) {
    if (error instanceof AppError) return false
    throw error
  }
}

/** Records how the machine ended. `reason` is QEMU's own, if it was received. */
async function keepEnd(
  machine: { process: ProcessIdentity; directory: string },
  monitor: Qmp,
  reason: string | undefined,
): Promise<void> {
  const size = consoleRingBytes
  const words = String(await monitor.command("ringbuf-read", { device: "console", size }, deadline))
  const end: GuestEnd = {
    process: machine.process,
    how: howOf(words, reason),
    console: words.slice(-keptCharacters),
  }
  const path = endPath(machine.directory)
  await writeFile(`${path}.part`, JSON.stringify(end), { mode: 0o600 })
  await rename(`${path}.part`, path)
}

/** Returns how the sandbox's last machine ended, or undefined if its guest did not end it. */
export async function readEnd(directory: string): Promise<GuestEnd | undefined> {
  const text = await readFile(endPath(directory), "utf8").catch(whenMissing)
  return text === undefined ? undefined : GuestEnd.safeParse(parseJson(text)).data
}

/**
 * A kernel that panics resets the machine, like a kernel that reboots. If QEMU's event was missed, only the console
 * tells them apart.
 */
function howOf(words: string, reason: string | undefined): GuestEnd["how"] {
  if (/Kernel panic - not syncing/.test(words)) return "panic"
  if (/^lohar: (crashed|cannot go on)/m.test(words)) return "agent"
  if (/^lohar: the init of the sandbox ended:/m.test(words)) return "init"
  const isReset = reason === undefined ? /reboot: Restarting system/.test(words) : reason === "guest-reset"
  return isReset ? "reboot" : "poweroff"
}

function endPath(directory: string): string {
  return join(directory, "last-end.json")
}
