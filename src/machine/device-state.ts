/**
 * The device state of a paused machine. QEMU writes the state through a descriptor to a file in the machine's
 * directory, and the daemon reads it from there into a snapshot. The file is untrusted: a guest may have taken over
 * its QEMU.
 */

import { closeSync, constants, fstatSync, readdirSync, type Stats, statSync } from "node:fs"
import { truncate } from "node:fs/promises"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { borrowDescriptor, rewind } from "../lib/posix.ts"
import { type ProcessIdentity, unlessOutOfReach } from "../lib/process-identity.ts"
import { savedStateFile } from "./command-line.ts"
import { stateBytesMax } from "./file-bounds.ts"
import { diskFull, isFull } from "./full-disk.ts"
import { Qmp } from "./qmp.ts"
import { qmpSocket } from "./sockets.ts"

/** QEMU answers no command while it writes its state. */
const deadline = { deadlineMs: 60_000 }
/** The bytes that begin every QEMU state. */
const stateMagic = "QEVM"

export const savedFlags = constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC

/** The file that QEMU writes, before it becomes part of a snapshot. */
export function savedStatePath(directory: string): string {
  return join(directory, "device-state")
}

export async function saveDeviceState(
  machine: { process: ProcessIdentity; directory: string },
  monitor: Pick<Qmp, "command">,
): Promise<Uint8Array> {
  const path = savedStatePath(machine.directory)
  // QEMU continues at the end of its last state: without this the file would grow with each one.
  if (rewindAt(machine.process, path)) await truncate(path, 0)
  const before = statSync(path).size
  try {
    await monitor.command("xen-save-devices-state", { filename: savedStateFile, live: false }, deadline)
  } catch (cause) {
    if (await isFull(machine.directory)) throw diskFull(cause)
    const hint = "try again; the daemon's log says why"
    throw new AppError("unavailable", "QEMU could not write its device state", { cause, hint })
  }
  const written = await takeWritten(path, before)
  // A crash while the file was emptied leaves zeros before the next state.
  const start = Buffer.from(written).indexOf(stateMagic)
  if (start < 0) throw new AppError("unavailable", "QEMU saved no device state")
  return written.subarray(start)
}

/** Pauses a template's machine, whose file is empty, and waits until its state is there. */
export async function saveTemplateState(directory: string): Promise<void> {
  const qmp = await Qmp.open({ socketPath: qmpSocket(directory), ...deadline })
  try {
    await qmp.command("stop", {}, deadline)
    await qmp.command("xen-save-devices-state", { filename: savedStateFile, live: false }, deadline)
  } finally {
    qmp.close()
  }
}

/** Reads a template's device state, or nothing that cannot be one. */
export async function readTemplateState(path: string): Promise<Uint8Array> {
  const written = await readAtMost(path, stateBytesMax)
  if (!written) throw new AppError("unavailable", "QEMU wrote more than a device state", { retryable: false })
  if (Buffer.from(written.subarray(0, stateMagic.length)).toString("latin1") !== stateMagic)
    throw new AppError("unavailable", "QEMU saved no device state")
  return written
}

/** Returns undefined for a longer file. */
async function readAtMost(path: string, bytesMax: number): Promise<Uint8Array | undefined> {
  if (statSync(path).size > bytesMax) return undefined
  const read = await Bun.file(path)
    .slice(0, bytesMax + 1)
    .bytes()
  return read.length > bytesMax ? undefined : read
}

/**
 * Frees the file's blocks behind the read position. The length stays, since QEMU may continue from its own
 * position.
 */
async function takeWritten(path: string, before: number): Promise<Uint8Array> {
  const after = statSync(path).size
  try {
    if (after - before > stateBytesMax) {
      throw new AppError("unavailable", "QEMU wrote more than a device state", { retryable: false })
    }
    return await Bun.file(path).slice(before, after).bytes()
  } finally {
    await truncate(path, 0)
    await truncate(path, after)
  }
}

/**
 * QEMU keeps duplicates of its descriptor, which share one open file. Returns false if there is none or they cannot
 * be reached.
 */
function rewindAt({ pid }: ProcessIdentity, path: string): boolean {
  const ours = statSync(path)
  const isOurs = (its: Stats | undefined) => its?.dev === ours.dev && its.ino === ours.ino
  const directory = `/proc/${pid}/fd`
  const number = unlessOutOfReach([], () => readdirSync(directory)).find((name) =>
    isOurs(unlessOutOfReach(undefined, () => statSync(`${directory}/${name}`, { throwIfNoEntry: false }))),
  )
  if (number === undefined) return false
  let fd: number
  try {
    fd = borrowDescriptor({ pid, fd: Number(number) })
  } catch {
    return false
  }
  try {
    return isOurs(fstatSync(fd)) && rewind(fd)
  } finally {
    closeSync(fd)
  }
}
