/**
 * Identifies a process for as long as the host runs. A pid alone is not enough, since pids are reused; pid, start time
 * and the host's boot id together are.
 */

import { readdirSync, readFileSync, readlinkSync } from "node:fs"
import { errorCodeOf } from "./error-code.ts"

export type ProcessIdentity = {
  pid: number
  /** Field 22 of /proc/PID/stat, clock ticks since the host's boot. */
  startTicks: number
  bootId: string
}

export const hostBootId = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim()

/** Returns undefined if there is no such process, or only a zombie. */
export function identityOf(pid: number): ProcessIdentity | undefined {
  const ticks = startTicks(pid)
  return ticks === undefined ? undefined : { pid, startTicks: ticks, bootId: hostBootId }
}

export function isAlive(identity: ProcessIdentity): boolean {
  return identity.bootId === hostBootId && startTicks(identity.pid) === identity.startTicks
}

export function startTicks(pid: number): number | undefined {
  const fields = readStat(pid)
  const state = fields?.[0]
  if (!fields || state === "X") return undefined
  // The first thread may have ended before others, which still hold the process's files and its TAP device.
  if (state === "Z" && Number(fields[17]) <= 1) return undefined
  return Number(fields[19])
}

/** Returns the fields of /proc/PID/stat from the third (the state) on. */
export function readStat(pid: number): string[] | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8")
    // The command's name is in parentheses and may contain anything, so the fields start after the last one.
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")
  } catch (error) {
    if (isGone(error)) return undefined
    throw error
  }
}

/** Pids of all visible processes of the host. */
export function listPids(): number[] {
  return readdirSync("/proc")
    .map(Number)
    .filter((pid) => Number.isInteger(pid))
}

/** A process chooses its own command line, so it proves nothing. */
export function commandLineOf(pid: number): string[] {
  return readOfProcess(pid, "cmdline").split("\0")
}

/** Reads a file below /proc/PID; returns an empty text if the process is gone or not accessible. */
export function readOfProcess(pid: number, name: string): string {
  return unlessOutOfReach("", () => readFileSync(`/proc/${pid}/${name}`, "utf8"))
}

/** The kernel's names of the process's open files and sockets. */
export function descriptorNamesOf(pid: number): string[] {
  return descriptorsOf(pid).map(({ name }) => name)
}

export function descriptorsOf(pid: number): { fd: string; name: string }[] {
  return unlessOutOfReach([], () => {
    const directory = `/proc/${pid}/fd`
    return readdirSync(directory).map((fd) => ({
      fd,
      name: unlessOutOfReach("", () => readlinkSync(`${directory}/${fd}`)),
    }))
  })
}

/** Returns `otherwise` if the process is gone or not accessible, or a descriptor was closed. */
export function unlessOutOfReach<T>(otherwise: T, look: () => T): T {
  try {
    return look()
  } catch (error) {
    if (isOutOfReach(error)) return otherwise
    throw error
  }
}

/** Returns whether the error means that the process is gone. */
export function isGone(error: unknown): boolean {
  return ["ENOENT", "ESRCH"].includes(errorCodeOf(error) ?? "")
}

function isOutOfReach(error: unknown): boolean {
  return isGone(error) || ["EACCES", "EPERM"].includes(errorCodeOf(error) ?? "")
}
