/**
 * Finds a machine's processes without knowing their pids. Command lines prove nothing: anybody can start a process
 * with any arguments, and QEMU may change its own. A machine's processes are those that hold files of its
 * directory, which nobody else can open, and run under a user id that only this daemon assigns
 * (docs/decisions/0022-whose-process.md).
 */

import { readdirSync, readlinkSync, statSync } from "node:fs"
import { basename, join } from "node:path"
import { hasProcesses } from "../lib/posix.ts"
import {
  identityOf,
  listPids,
  type ProcessIdentity,
  readOfProcess,
  unlessOutOfReach,
} from "../lib/process-identity.ts"
import { isZygoteSlot } from "./user-ids.ts"

/** Each slot has a user id; slot 0's is for machines without a sandbox. */
const slotsMax = 65_535
/** Every machine has all of these open for writing. */
const filesOfMachine = ["disk.qcow2", "device-state"]

/** By what this daemon's machines are recognised: how it starts them. */
export type ProcessTraits = {
  /** Names of their executable files: all that identifies a machine's processes once its jail has been removed. */
  qemu: string
  launcher: string
  /** First user id of machines; undefined if they run as the daemon's own user. */
  uidBase: number | undefined
}

/**
 * The machine's QEMU and any processes it has started, oldest first. A zygote holds a machine's files for the moment in
 * which it forks it, and has a user of its own.
 */
export function findMachine(directory: string, { qemu, uidBase }: ProcessTraits): ProcessIdentity[] {
  return holdersOf(
    directory,
    (pid) => programOf(pid) === qemu && isMachineUser(pid, uidBase) && !isZygote(pid, uidBase),
  )
}

/** The machine's processes and those about to become one: a daemon that was killed may have left launchers. */
export function findAllOfMachine(
  directory: string,
  { qemu, launcher, uidBase }: ProcessTraits,
): ProcessIdentity[] {
  return holdersOf(directory, (pid) => {
    const program = programOf(pid)
    if (program !== qemu && program !== launcher) return false
    return isMachineUser(pid, uidBase) || (program === launcher && isMachineUser(pid, undefined))
  })
}

/** Pids of all machines that are started in this way, of other data directories too if they share its user ids. */
export function findMachines({ qemu, uidBase }: ProcessTraits): number[] {
  return listPids().filter((pid) => programOf(pid) === qemu && isMachineUser(pid, uidBase))
}

/**
 * Tells whether a process has that slot's user id, also one that has ended and that its parent has not noticed. The
 * launcher detects processes that hide their user from this check.
 */
export function isSlotInUse(uidBase: number | undefined, slot: number): boolean {
  return uidBase !== undefined && hasProcesses(uidBase + slot)
}

function holdersOf(directory: string, isCandidate: (pid: number) => boolean): ProcessIdentity[] {
  const files = new Set(filesOfMachine.flatMap((name) => fileIdentity(join(directory, name)) ?? []))
  if (files.size === 0) return []
  return listPids()
    .filter((pid) => isCandidate(pid) && filesOf(pid).some((file) => files.has(file)))
    .flatMap((pid) => identityOf(pid) ?? [])
    .toSorted((one, other) => one.startTicks - other.startTicks)
}

function programOf(pid: number): string {
  // Kernel threads have none.
  const path = `/proc/${pid}/exe`
  const target = unlessOutOfReach("", () =>
    statSync(path, { throwIfNoEntry: false }) === undefined ? "" : readlinkSync(path),
  )
  return basename(target.replace(/ \(deleted\)$/, ""))
}

/** Returns whether all its user ids belong to machines; without a base, to the daemon. */
function isMachineUser(pid: number, uidBase: number | undefined): boolean {
  const isOurs = (id: number) =>
    uidBase === undefined ? id === process.getuid?.() : id >= uidBase && id - uidBase <= slotsMax
  const ids = userIdsOf(pid)
  return ids.length > 0 && ids.every(isOurs)
}

function isZygote(pid: number, uidBase: number | undefined): boolean {
  return uidBase !== undefined && userIdsOf(pid).some((id) => isZygoteSlot(id - uidBase))
}

/** Real, effective, saved and of its files. */
function userIdsOf(pid: number): number[] {
  const [, ...ids] = /^Uid:\t(\d+)\t(\d+)\t(\d+)\t(\d+)$/m.exec(readOfProcess(pid, "status")) ?? []
  return ids.map(Number)
}

function filesOf(pid: number): string[] {
  const directory = `/proc/${pid}/fd`
  return unlessOutOfReach([], () => readdirSync(directory)).flatMap(
    (fd) => fileIdentity(`${directory}/${fd}`) ?? [],
  )
}

function fileIdentity(path: string): string | undefined {
  const found = unlessOutOfReach(undefined, () => statSync(path, { throwIfNoEntry: false, bigint: true }))
  return found === undefined ? undefined : `${found.dev}:${found.ino}`
}
