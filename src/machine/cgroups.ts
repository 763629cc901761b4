/**
 * A control group (version 2) per machine, which holds it to its size: memory, processor time, number of threads. Where
 * the host offers no controllers there are none, and `bhatti doctor` says so.
 *
 *   /sys/fs/cgroup/bhatti-INSTALLATION/MACHINE
 *
 * Beside the service manager's groups and not below the daemon's own, which must be free of processes once it hands out
 * controllers, so that a daemon could not be started again beside its running machines.
 */

import { mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { errorCodeOf } from "../lib/error-code.ts"
import type { MachineShape } from "./command-line.ts"

const controllers = ["cpu", "memory", "pids"]
const mebibyte = 1024 * 1024
const cpuPeriodUs = 100_000
/** For QEMU's own threads, beside those that are the guest's processors. */
const cpuOfQemuUs = 25_000
/** QEMU's code and heap, and what the kernel keeps for it; under emulation its translations too. */
const memoryOfQemuMib = { kvm: 128, tcg: 256 }
/** vCPUs, at most 64 threads for disk requests, and a few of QEMU's own. */
const threadsOfQemu = 96

export class Cgroups {
  readonly #directory: string | undefined

  private constructor(directory: string | undefined) {
    this.#directory = directory
  }

  /** Without root, or on a host without controllers, it makes no groups. */
  static open(options: { mountPoint: string; dataDir: string }): Cgroups {
    const id = new Bun.CryptoHasher("sha256").update(options.dataDir).digest("hex").slice(0, 8)
    const directory = join(options.mountPoint, `bhatti-${id}`)
    try {
      if (!delegate(options.mountPoint)) return new Cgroups(undefined)
      mkdirSync(directory, { recursive: true })
      if (!delegate(directory)) return new Cgroups(undefined)
    } catch (error) {
      if (errorCodeOf(error) === undefined) throw error
      return new Cgroups(undefined)
    }
    for (const name of namesIn(directory)) removeIfEmpty(join(directory, name))
    return new Cgroups(directory)
  }

  /** The machine's group, for the launcher to join; undefined where there are none. */
  make(name: string, shape: MachineShape): string | undefined {
    if (this.#directory === undefined) return undefined
    const path = join(this.#directory, name)
    mkdirSync(path, { recursive: true })
    for (const [file, value] of Object.entries(limitsOf(shape))) writeFileSync(join(path, file), value)
    return path
  }

  /** After its machine has ended; one whose last process is still ending stays for the next daemon to remove. */
  remove(name: string): void {
    if (this.#directory !== undefined) removeIfEmpty(join(this.#directory, name))
  }

  /** When the daemon stops: nothing stays unless machines do. */
  close(): void {
    if (this.#directory !== undefined) removeIfEmpty(this.#directory)
  }
}

function limitsOf({ cpus, memoryMib, accelerator }: MachineShape): Record<string, string> {
  return {
    "memory.max": `${(memoryMib + memoryOfQemuMib[accelerator]) * mebibyte}`,
    "memory.oom.group": "1",
    "cpu.max": `${cpus * cpuPeriodUs + cpuOfQemuUs} ${cpuPeriodUs}`,
    "pids.max": `${cpus + threadsOfQemu}`,
  }
}

/** Lets the groups below use the controllers, if all of them are there. */
function delegate(directory: string): boolean {
  const offered = readFileSync(join(directory, "cgroup.controllers"), "utf8").trim().split(/\s+/)
  if (!controllers.every((name) => offered.includes(name))) return false
  writeFileSync(join(directory, "cgroup.subtree_control"), controllers.map((name) => `+${name}`).join(" "))
  return true
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
