/**
 * A control group (version 2) per machine, which limits it to its size: memory, processor time, number of threads,
 * and the disk's bandwidth if the host offers `io`. A host without controllers has no groups, and `bhatti doctor`
 * reports it.
 *
 *   /sys/fs/cgroup/bhatti-INSTALLATION/MACHINE
 *
 * The groups are beside the service manager's groups, not below the daemon's own: a group that delegates
 * controllers must have no processes, so a daemon could not be restarted beside its running machines.
 */

import { mkdirSync, readdirSync, readFileSync, rmdirSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { errorCodeOf } from "../lib/error-code.ts"
import { readIfReadable } from "../lib/missing-files.ts"
import type { MachineShape } from "./command-line.ts"
import { machineNiceness } from "./process.ts"

export const controllers = { needed: ["cpu", "memory", "pids"], io: "io" }
const nicenessFile = "cpu.weight.nice"
const mebibyte = 1024 * 1024
const cpuPeriodUs = 100_000
/** Share for QEMU's own threads, in addition to the guest's processors. */
const cpuOfQemuUs = 25_000
/** QEMU's code and heap, and the kernel's memory for it; under emulation its translations too. */
const memoryOfQemuMib = { kvm: 128, tcg: 256 }
/** vCPUs, at most 64 threads for disk requests, and a few of QEMU's own. */
const threadsOfQemu = 96

export class Cgroups {
  readonly #directory: string | undefined
  readonly #ioMax: string | undefined

  private constructor(directory: string | undefined, ioMax?: string) {
    this.#directory = directory
    this.#ioMax = ioMax
  }

  /**
   * Without root, or on a host without controllers, it creates no groups. `disk`: read and write limits per
   * machine, and the disk they apply to.
   */
  static open(options: {
    mountPoint: string
    dataDir: string
    disk?: { device: string; bytesPerSec: number } | undefined
  }): Cgroups {
    const id = new Bun.CryptoHasher("sha256").update(options.dataDir).digest("hex").slice(0, 8)
    const directory = join(options.mountPoint, `bhatti-${id}`)
    let ioMax: string | undefined
    try {
      if (!delegate(options.mountPoint)) return new Cgroups(undefined)
      mkdirSync(directory, { recursive: true })
      const delegated = delegate(directory)
      if (!delegated) return new Cgroups(undefined)
      if (delegated.includes(controllers.io)) ioMax = ioLimit(directory, options.disk)
    } catch (error) {
      if (errorCodeOf(error) === undefined) throw error
      return new Cgroups(undefined)
    }
    for (const name of namesIn(directory)) removeIfEmpty(join(directory, name))
    return new Cgroups(directory, ioMax)
  }

  /** True if machines run in groups of their own and not in the daemon's. */
  get areUsed(): boolean {
    return this.#directory !== undefined
  }

  /** Creates the machine's group, for the launcher to join; returns undefined if groups are not used. */
  make(name: string, shape: MachineShape): string | undefined {
    if (this.#directory === undefined) return undefined
    const path = join(this.#directory, name)
    mkdirSync(path, { recursive: true })
    const limits = { ...limitsOf(shape), ...(this.#ioMax !== undefined && { "io.max": this.#ioMax }) }
    for (const [file, value] of Object.entries(limits)) writeFileSync(join(path, file), value)
    return path
  }

  /** Sets the group's weight: processes' own priorities do not count between groups. */
  setNiceness(name: string, niceness: number): void {
    if (this.#directory === undefined) return
    try {
      writeFileSync(join(this.#directory, name, nicenessFile), `${niceness}`, { flag: "r+" })
    } catch (error) {
      // A machine started without a group has none, and one that has exited has none either.
      if (errorCodeOf(error) !== "ENOENT" && errorCodeOf(error) !== "ENODEV") throw error
    }
  }

  /** Tells whether the kernel has killed it because its group or the host ran out of memory. Call before `remove`. */
  ranOutOfMemory(name: string): boolean {
    if (this.#directory === undefined) return false
    try {
      const events = readFileSync(join(this.#directory, name, "memory.events"), "utf8")
      return /^oom_kill [1-9]/m.test(events)
    } catch (error) {
      if (errorCodeOf(error) === undefined) throw error
      return false
    }
  }

  /**
   * Removes the group of a machine that has exited; if its last process is still exiting, the next daemon removes
   * the group.
   */
  remove(name: string): void {
    if (this.#directory !== undefined) removeIfEmpty(join(this.#directory, name))
  }

  /** Runs when the daemon stops: removes the parent group unless machines remain. */
  close(): void {
    if (this.#directory !== undefined) removeIfEmpty(this.#directory)
  }
}

/** Returns the whole disk that a directory is on, as MAJOR:MINOR; undefined if limits cannot be set for it. */
export function diskOf(directory: string): string | undefined {
  const device = deviceText(statSync(directory).dev)
  const [, source] =
    readFileSync("/proc/self/mountinfo", "utf8")
      .split("\n")
      .map((line) => new RegExp(`^\\S+ \\S+ ${device} .* - \\S+ (/dev/\\S+) `).exec(line))
      .find((match) => match !== null) ?? []
  // Some file systems have a device number of their own, which is not a disk's.
  for (const candidate of [device, ...(source === undefined ? [] : [rawDeviceOf(source)])]) {
    const path = `/sys/dev/block/${candidate}`
    if (readIfReadable(`${path}/dev`) === undefined) continue
    const isPart = readIfReadable(`${path}/partition`) !== undefined
    return isPart ? readIfReadable(`${path}/../dev`)?.trim() : candidate
  }
  return undefined
}

function rawDeviceOf(path: string): string {
  return deviceText(statSync(path, { throwIfNoEntry: false })?.rdev ?? 0)
}

function deviceText(number: number): string {
  const [low, high] = [number % 2 ** 32, Math.floor(number / 2 ** 32)]
  const major = ((low >>> 8) & 0xfff) + (high - (high % 0x1000))
  const minor = (low & 0xff) + ((low >>> 12) & 0xfff00)
  return `${major}:${minor}`
}

/** Returns undefined if the kernel refuses limits for that disk. */
function ioLimit(
  directory: string,
  disk: { device: string; bytesPerSec: number } | undefined,
): string | undefined {
  if (disk === undefined) return undefined
  try {
    writeFileSync(join(directory, "io.max"), `${disk.device} rbps=max wbps=max`)
  } catch (error) {
    if (errorCodeOf(error) === undefined) throw error
    return undefined
  }
  return `${disk.device} rbps=${disk.bytesPerSec} wbps=${disk.bytesPerSec}`
}

/**
 * Counts the guest's memory twice: the first write of a clone to a page where its template has a hole takes a page of
 * its own and a page of the template's memory file, which the kernel charges to the first group that touches it.
 */
function limitsOf({ cpus, memoryMib, accelerator }: MachineShape): Record<string, string> {
  return {
    "memory.max": `${(2 * memoryMib + memoryOfQemuMib[accelerator]) * mebibyte}`,
    "memory.oom.group": "1",
    "cpu.max": `${cpus * cpuPeriodUs + cpuOfQemuUs} ${cpuPeriodUs}`,
    "pids.max": `${cpus + threadsOfQemu}`,
    [nicenessFile]: `${machineNiceness}`,
  }
}

/** Delegates the controllers to the groups below, if all required ones are available. Returns the delegated ones. */
function delegate(directory: string): string[] | undefined {
  const offered = readFileSync(join(directory, "cgroup.controllers"), "utf8").trim().split(/\s+/)
  if (!controllers.needed.every((name) => offered.includes(name))) return undefined
  const wanted = [...controllers.needed, controllers.io].filter((name) => offered.includes(name))
  writeFileSync(join(directory, "cgroup.subtree_control"), wanted.map((name) => `+${name}`).join(" "))
  return wanted
}

function namesIn(directory: string): string[] {
  return readdirSync(directory, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => name)
}

function removeIfEmpty(path: string): void {
  try {
    rmdirSync(path)
  } catch (error) {
    if (!["ENOENT", "EBUSY", "ENOTEMPTY", "EACCES", "EPERM", "ENOTDIR"].includes(errorCodeOf(error) ?? ""))
      throw error
  }
}
