/** The QEMU process: started unprivileged and detached, observed while it runs, and killed. */

import { closeSync, openSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { setPriority } from "node:os"
import { AppError } from "@bhatti/contract/errors"
import { z } from "zod"
import { errorCodeOf } from "../lib/error-code.ts"
import { limitFileBytes } from "../lib/posix.ts"
import {
  identityOf,
  isAlive,
  isGone,
  type ProcessIdentity,
  readOfProcess,
  readStat,
  unlessOutOfReach,
} from "../lib/process-identity.ts"
import { descriptors, zygoteDescriptors } from "./command-line.ts"
import type { Jail } from "./jail.ts"

/** Linux counts processor time in hundredths of a second. */
const tickMs = 10

/** Processor time of the process and all its threads, in milliseconds; 0 if it has exited. */
export function processCpuMs(identity: ProcessIdentity): number {
  const fields = isAlive(identity) ? readStat(identity.pid) : undefined
  return fields ? (Number(fields[11]) + Number(fields[12])) * tickMs : 0
}

/** Bytes the process has read from and written to files so far; 0 if it has exited or may not be inspected. */
export function processIoBytes(identity: ProcessIdentity): number {
  if (!isAlive(identity)) return 0
  const text = readOfProcess(identity.pid, "io")
  const field = (name: string) => Number(new RegExp(`^${name}: (\\d+)$`, "m").exec(text)?.[1] ?? 0)
  return field("rchar") + field("wchar")
}

/** Lets a process make files of that length; never lowers its limit. Returns whether it may. */
export function allowFileBytes(pid: number, bytes: number): boolean {
  const limit = /^Max file size +\S+ +(\S+)/m.exec(readOfProcess(pid, "limits"))?.[1]
  if (limit === "unlimited" || Number(limit) >= bytes) return true
  return limitFileBytes(pid, bytes)
}

/** Bytes that went through a network interface in both directions; 0 when there is none. */
export function interfaceBytes(name: string): number {
  const directory = `/sys/class/net/${name}/statistics`
  const count = (name: string) =>
    Number(unlessOutOfReach("", () => readFileSync(`${directory}/${name}`, "utf8")))
  return count("rx_bytes") + count("tx_bytes")
}

/** In the `background` a machine gives way to others. */
export type Urgency = "normal" | "background"

/** Applies to all current threads of the process; later threads inherit it. */
export function setNiceness(identity: ProcessIdentity, niceness: number): void {
  setSessionNiceness(identity.pid, niceness - machineNiceness)
  try {
    for (const thread of readdirSync(`/proc/${identity.pid}/task`)) setPriority(Number(thread), niceness)
  } catch (error) {
    const { info } = error as { info?: { code?: string } }
    if (info?.code !== "ESRCH" && !isGone(error)) throw error
  }
}

/**
 * Where the kernel divides processors among sessions first (autogroup), a process's own priority counts only within
 * its session. Every machine is a session and weighs as much as any other.
 */
export function setSessionNiceness(pid: number, niceness: number): void {
  try {
    writeFileSync(`/proc/${pid}/autogroup`, `${niceness}`)
  } catch (error) {
    // The kernel lacks autogroup, or limits how often a user other than root may change it.
    const code = errorCodeOf(error) ?? ""
    if (!isGone(error) && !["EACCES", "EPERM", "EAGAIN", "EINVAL"].includes(code)) throw error
  }
}

/**
 * Raises the priority of the session that this process leads: the daemon serves everybody, and a single flood of
 * packets that it forwards must not starve the rest. As a service the daemon leads a session; started by hand it
 * does not.
 */
export function raiseOwnSession(): void {
  const [, , , session] = readStat(process.pid) ?? []
  if (Number(session) === process.pid) setSessionNiceness(process.pid, daemonNiceness)
}

export type DescriptorFiles = Partial<Record<keyof typeof descriptors, number>>

/** The rights of a QEMU process on the host, beyond the descriptors it inherits. */
export type Confinement = {
  jail: Jail
  /** full: its own namespaces and the jail's root. reduced: it sees the host as its user does. */
  level: "full" | "reduced"
  /** Its user and group. If omitted (the daemon is not root), it runs as the daemon's own user. */
  uid: number | undefined
  /** Refuse the start while any other process has that user id. */
  isAlone?: boolean
  /** It will be forked: it shares the daemon's pid namespace, and sees the root of its children beside its own. */
  isZygote?: boolean
  groups: number[]
  /** Device nodes visible in the jail. */
  devices: string[]
  /** Device nodes that appear there as owned by its user, whatever the host's nodes are. Requires root and a jail. */
  ownDevices?: string[]
  /** The control group that limits it, if the host has them. */
  cgroup: string | undefined
  /** Maximum length of any file that it writes to. */
  fileBytesMax: number
}

/**
 * A single heap for all threads, in small pages: the kernel would fill the gaps of a heap in large pages, although
 * QEMU has freed them. Large blocks always get a mapping of their own. By default they get it only until the first one
 * is freed, and then the tables that QEMU makes and frees while it starts leave gaps.
 */
const heapSettings = [
  "glibc.malloc.arena_max=1",
  "glibc.malloc.mmap_threshold=49152",
  "glibc.malloc.top_pad=32768",
].join(":")
const launchDeadlineMs = 10_000
/** Passed in a machine's environment, where no later daemon changes it. */
const stateVariable = "BHATTI_STATE"
const qemuVariable = "BHATTI_QEMU"
const kitVariable = "BHATTI_KIT"
/** Leaves the processor to the daemon, which serves everybody, when a sandbox computes. */
export const machineNiceness = 5
const daemonNiceness = -5

/** Path of a kit disk below the data directory. */
export const KitPath = z.string().regex(/^kits\/[0-9a-f]{16}\.raw$/)

type Start = {
  binary: string
  arguments: string[]
  files: DescriptorFiles
  /** Descriptors that follow them. */
  disks?: number[]
  confinement: Confinement
  /** Descriptor for its standard output and error. */
  output: number
  /** Returns its last output, for the log if it exits immediately. */
  lastWords?: () => string
  facts?: StartFacts
  /** Load the library among its descriptors into it. */
  isZygote?: boolean
}

/** Facts about a machine's start that a later daemon needs. */
type StartFacts = {
  /** Fingerprint that the state it will save fits. */
  stateFingerprint: string
  /** Id of the build. */
  qemuId: string
  /** Path of its kit disk below the data directory. */
  kit: string | undefined
}

/**
 * Starts QEMU in a session of its own, detached from the daemon. The caller keeps its descriptors and may close
 * them once this returns.
 */
export async function spawnQemu(start: Start): Promise<ProcessIdentity> {
  const identity = identityOf(await launch(start))
  if (identity !== undefined) return identity
  throw new AppError("unavailable", "QEMU ended as soon as it was started", {
    cause: new Error(start.lastWords?.() || "it printed no output"),
    hint: "see its output in the daemon's log",
  })
}

/** The process's pid; it may have exited by now. */
export async function launch(start: Start): Promise<number> {
  const unused = openSync("/dev/null", "r+")
  try {
    const own = Object.keys(descriptors).map(
      (name) => start.files[name as keyof typeof descriptors] ?? unused,
    )
    const handed = [...own, ...(start.disks ?? [])]
    const launcher = Bun.spawn({
      cmd: [
        start.confinement.jail.launcher,
        ...launcherArguments(start.confinement, handed.length),
        "--",
        start.binary,
        ...start.arguments,
      ],
      cwd: "/",
      env: {
        PATH: "/usr/sbin:/usr/bin:/sbin:/bin",
        LC_ALL: "C",
        GLIBC_TUNABLES: heapSettings,
        ...(start.facts && variablesOf(start.facts)),
        ...(start.isZygote && { LD_PRELOAD: `/proc/self/fd/${zygoteDescriptors.library}` }),
      },
      stdio: ["ignore", "pipe", start.output, ...handed],
      timeout: launchDeadlineMs,
    })
    const [words, exitCode] = await Promise.all([new Response(launcher.stdout).text(), launcher.exited])
    if (exitCode === 0) return Number(words)
    throw new AppError("unavailable", `QEMU cannot be started confined: ${words.trim() || "no answer"}`, {
      subject: { kind: "host" },
    })
  } finally {
    closeSync(unused)
  }
}

/**
 * Returns the fingerprint passed to `spawnQemu`, perhaps by a daemon with another QEMU or other arguments;
 * undefined if none was passed.
 */
export function stateFingerprintOf(pid: number): string | undefined {
  return variableOf(pid, stateVariable)
}

/** Returns the id of the build passed to `spawnQemu`. A QEMU that its guest has taken over can change it. */
export function qemuIdOf(pid: number): string | undefined {
  return variableOf(pid, qemuVariable)
}

/** Returns the path of the kit disk passed to `spawnQemu`, under the same condition. */
export function kitOf(pid: number): string | undefined {
  return KitPath.safeParse(variableOf(pid, kitVariable)).data
}

function variablesOf({ stateFingerprint, qemuId, kit }: StartFacts): Record<string, string> {
  const variables = { [stateVariable]: stateFingerprint, [qemuVariable]: qemuId }
  return kit === undefined ? variables : { ...variables, [kitVariable]: kit }
}

function variableOf(pid: number, name: string): string | undefined {
  const words = readOfProcess(pid, "environ").split("\0")
  return words.find((word) => word.startsWith(`${name}=`))?.slice(name.length + 1)
}

function launcherArguments(confinement: Confinement, handed: number): string[] {
  const { jail, level, uid, isAlone, groups, devices, ownDevices = [], cgroup, fileBytesMax } = confinement
  return [
    ...(level === "full"
      ? [
          `--root=${jail.root}`,
          ...devices.map((path) => `--device=${path}`),
          ...ownDevices.map((path) => `--own-device=${path}`),
        ]
      : []),
    ...(uid === undefined ? [] : [`--uid=${uid}`]),
    ...(isAlone ? ["--alone"] : []),
    ...(confinement.isZygote ? ["--zygote"] : []),
    ...(cgroup === undefined ? [] : [`--cgroup=${cgroup}`]),
    ...groups.map((group) => `--group=${group}`),
    `--handed=${handed}`,
    `--file-bytes=${fileBytesMax}`,
    `--nice=${machineNiceness}`,
  ]
}

/** A process exits within 5 to 30 ms, and stopping or destroying a sandbox waits for that. */
const quickRounds = 50

/** Kills the process and waits until it has exited. Leaves alone a process that is not ours any more. */
export async function killProcess(identity: ProcessIdentity, options: { deadlineMs: number }): Promise<void> {
  if (!isAlive(identity)) return
  signalProcess(identity.pid)
  if (await isGoneWithin(identity, options)) return
  throw new AppError("unavailable", `QEMU process ${identity.pid} does not end`, {
    hint: "it is stuck in the kernel; look at the host's disks and its kernel log",
  })
}

export async function isGoneWithin(
  identity: ProcessIdentity,
  options: { deadlineMs: number },
): Promise<boolean> {
  const deadline = performance.now() + options.deadlineMs
  for (let rounds = 0; isAlive(identity); rounds++) {
    if (performance.now() > deadline) return false
    await Bun.sleep(rounds < quickRounds ? 1 : 20)
  }
  return true
}

function signalProcess(pid: number): void {
  try {
    process.kill(pid, "SIGKILL")
  } catch (error) {
    if (errorCodeOf(error) !== "ESRCH") throw error
  }
}
