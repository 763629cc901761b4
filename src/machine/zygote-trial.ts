/**
 * The trial of a zygote: a machine is forked from it, answers, and is looked at from outside. A QEMU whose child holds
 * what it should not, or does not work, is not forked for anybody.
 */

import { mkdir, rm } from "node:fs/promises"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { otherStatus, sharedMappings, sharedOpenFiles } from "../lib/open-files.ts"
import type { ProcessIdentity } from "../lib/process-identity.ts"
import { randomHex } from "../lib/random-hex.ts"
import { zygoteDescriptors } from "./command-line.ts"
import { Qmp } from "./qmp.ts"
import { qmpSocket } from "./sockets.ts"
import type { Machine } from "./starter.ts"

const qmpDeadlineMs = 10_000
/** Memory files that no process can write to, and a device without content. */
const harmless = /^(?:\/memfd:bhatti-(?:template|zygote)(?: \(deleted\))?|\/dev\/null)$/

type Trial<Guest> = {
  zygote: { directory: string; process: ProcessIdentity }
  /** Forks a machine into that directory. */
  fork: (directory: string) => Promise<{ machine: Machine; guest: Guest }>
  kill: (machine: Machine) => Promise<void>
  /** Has the guest do something. */
  prove: (guest: Guest) => Promise<unknown>
}

/** Throws, with the reason, unless machines can be forked from it. */
export async function tryZygote<Guest extends { close(): void }>(trial: Trial<Guest>): Promise<void> {
  const directory = join(trial.zygote.directory, `trial-${randomHex(4)}`)
  await using undo = new AsyncDisposableStack()
  await mkdir(directory, { mode: 0o700 })
  undo.defer(() => rm(directory, { recursive: true, force: true }))
  const { machine, guest } = await trial.fork(directory)
  undo.defer(() => trial.kill(machine))
  undo.defer(() => guest.close())
  checkSeparation(machine.process.pid, trial.zygote.process.pid)
  const fd = otherStatus(machine.process.pid, trial.zygote.process.pid).find(
    (fd) => fd !== zygoteDescriptors.control,
  )
  if (fd !== undefined)
    throw new AppError("unavailable", `a forked machine has its descriptor ${fd} in another status`)
  await trial.prove(guest)
  await checkMonitor(directory)
}

/** Throws if two processes share an open file that one of them could write to or move in, or memory. */
export function checkSeparation(pid: number, other: number): void {
  const files = sharedOpenFiles(pid, other).filter(
    ({ name, isWritable }) => isWritable || name.startsWith("anon_inode:"),
  )
  const [file] = files.filter(({ name }) => !harmless.test(name))
  if (file) throw apart(`both hold ${file.name}`)
  const [mapping] = sharedMappings(pid, other)
  if (mapping) throw apart(`both map ${mapping}`)
}

function apart(what: string): AppError {
  return new AppError("unavailable", `a forked machine is not apart from its zygote: ${what}`)
}

async function checkMonitor(directory: string): Promise<void> {
  const monitor = await Qmp.open({ socketPath: qmpSocket(directory), deadlineMs: qmpDeadlineMs })
  try {
    await monitor.command("stop", {}, { deadlineMs: qmpDeadlineMs })
    await monitor.command("cont", {}, { deadlineMs: qmpDeadlineMs })
  } finally {
    monitor.close()
  }
}
