/**
 * The confinement of a machine that was forked from a zygote. The child makes its own namespaces and gives up its
 * rights (zygote/confine.c); it waits twice for the daemon, which alone decides which user it becomes, and looks at it
 * from outside before its guest runs (docs/decisions/0032-confinement-of-forked-machines.md).
 */

import { closeSync, constants, openSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { type Received, sendDescriptors } from "../lib/descriptor-passing.ts"
import { errorCodeOf } from "../lib/error-code.ts"
import { hasProcesses } from "../lib/posix.ts"
import {
  identityOf,
  isAlive,
  listPids,
  type ProcessIdentity,
  readOfProcess,
  readStat,
} from "../lib/process-identity.ts"
import type { Confinement } from "./process.ts"

/** As the launcher sets them for a machine that is not forked. */
const threadsMax = 1024
const openFilesMax = 1024
const outOfMemoryScore = 500
const namespaces = ["user", "mnt", "pid", "ipc", "uts", "net"]
/** The zygote's, its own, and those of QEMU and of the launcher that both have. */
const filtersMin = 3

export type ChildConfinement = {
  /** User of the zygote, which the child is born with. */
  zygoteUid: number
  /** The child's user and group. */
  uid: number
  /** Its control group, if the host has them. */
  cgroup: string | undefined
  fileBytesMax: number
  /** Device nodes that it sees. */
  devices: readonly string[]
}

/** Throws where a child could not be confined as a machine that is not forked. */
export function childConfinement(zygote: ProcessIdentity, wanted: Confinement): ChildConfinement {
  const { level, uid, cgroup, fileBytesMax, devices, groups, ownDevices = [] } = wanted
  const zygoteUid = Number(fieldOf(readOfProcess(zygote.pid, "status"), "Uid")?.split("\t")[0])
  if (level !== "full" || uid === undefined || groups.length > 0 || ownDevices.length > 0)
    return refuse("this host gives it no user and namespaces of its own")
  if (!isAlive(zygote) || Number.isNaN(zygoteUid)) return refuse("its zygote has ended")
  return { zygoteUid, uid, cgroup, fileBytesMax, devices }
}

/**
 * Answers a child that asks for its user, and then one that says that it is confined. Returns false for any other
 * message. A child that is refused ends.
 */
export function answerChild(
  socket: number,
  { bytes, pid }: Pick<Received, "bytes" | "pid">,
  wanted: ChildConfinement,
): boolean {
  const words = bytes.toString()
  if (words !== "born" && words !== "confined") return false
  const child = identityOf(pid)
  try {
    if (words === "born") grant(pid, wanted)
    else check(pid, wanted)
    if (sendDescriptors(socket, Buffer.from(words === "born" ? "granted" : "run"), [])) return true
    return refuse("it has ended")
  } catch (error) {
    if (child !== undefined) endChild(child)
    const code = errorCodeOf(error)
    if (error instanceof AppError || code === undefined) throw error
    return refuse(code)
  }
}

function endChild(child: ProcessIdentity): void {
  if (!isAlive(child)) return
  try {
    process.kill(child.pid, "SIGKILL")
  } catch (error) {
    if (errorCodeOf(error) !== "ESRCH") throw error
  }
}

/** The kernel has named the sender. That it is a child of this zygote, and not anybody's, its user shows. */
function grant(pid: number, { zygoteUid, uid, cgroup }: ChildConfinement): void {
  // Stays this process's, whatever happens to the pid.
  const directory = openSync(`/proc/${pid}`, constants.O_RDONLY | constants.O_DIRECTORY)
  const child = `/proc/self/fd/${directory}`
  try {
    const status = readFileSync(join(child, "status"), "utf8")
    expectEqual(status, "Uid", Array(4).fill(`${zygoteUid}`).join("\t"))
    expectEqual(status, "NSpid", `${pid}\t1`)
    refuseOthersOf(uid)
    for (const map of ["gid_map", "uid_map"]) writeFileSync(join(child, map), `${uid} ${uid} 1`)
    if (cgroup !== undefined) writeFileSync(join(cgroup, "cgroup.procs"), `${pid}`)
  } finally {
    closeSync(directory)
  }
}

/** Looks at each process only if there may be one: a process that has ended counts until its parent has noticed. */
function refuseOthersOf(uid: number): void {
  if (!hasProcesses(uid)) return
  const holder = listPids().find(
    (pid) => identityOf(pid) && fieldOf(readOfProcess(pid, "status"), "Uid")?.split("\t").includes(`${uid}`),
  )
  if (holder !== undefined) refuse(`user id ${uid} is in use by process ${holder}`)
}

/** Throws unless the child has exactly the rights of a machine that is not forked. */
function check(pid: number, wanted: ChildConfinement): void {
  checkStatus(pid, wanted.uid)
  checkNamespaces(pid)
  checkRoot(pid, wanted.devices)
  checkLimits(pid, wanted)
}

function checkStatus(pid: number, uid: number): void {
  const status = readFileSync(`/proc/${pid}/status`, "utf8")
  for (const ids of ["Uid", "Gid"]) expectEqual(status, ids, Array(4).fill(`${uid}`).join("\t"))
  expectEqual(status, "Groups", "")
  for (const set of ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"])
    expectEqual(status, set, "0000000000000000")
  expectEqual(status, "NoNewPrivs", "1")
  expectEqual(status, "Seccomp", "2")
  expectEqual(status, "NSpid", `${pid}\t1`)
  expectEqual(status, "Threads", "1")
  expectEqual(status, "TracerPid", "0")
  // A kernel before 5.9 does not count them.
  const filters = fieldOf(status, "Seccomp_filters")
  if (filters !== undefined && Number(filters) < filtersMin) refuse(`it has ${filters} system call filters`)
}

function checkNamespaces(pid: number): void {
  for (const kind of namespaces) {
    const of = (owner: number | string) => statSync(`/proc/${owner}/ns/${kind}`).ino
    if (of(pid) === of("self")) refuse(`it is in the daemon's ${kind} namespace`)
  }
  const [, , , session] = readStat(pid) ?? []
  if (Number(session) !== pid) refuse("it has no session of its own")
}

function checkRoot(pid: number, devices: readonly string[]): void {
  const places = readFileSync(`/proc/${pid}/mountinfo`, "utf8")
    .trim()
    .split("\n")
    .map((line) => line.split(" ")[4])
  const wanted = ["/", "/proc", ...devices]
  if (places.toSorted().join() !== wanted.toSorted().join()) refuse(`it sees ${places.join(" and ")}`)
  if (!readdirSync(`/proc/${pid}/root/proc`).includes("1")) refuse("it does not see itself")
}

function checkLimits(pid: number, { cgroup, fileBytesMax }: ChildConfinement): void {
  const text = readFileSync(`/proc/${pid}/limits`, "utf8")
  const limits = {
    "core file size": 0,
    "open files": openFilesMax,
    processes: threadsMax,
    "file size": fileBytesMax,
  }
  for (const [name, max] of Object.entries(limits)) {
    const [, found = ""] = new RegExp(`^Max ${name} +\\S+ +(\\S+)`, "m").exec(text) ?? []
    if (found === "" || found === "unlimited" || Number(found) > max)
      refuse(`its limit of ${name} is ${found}`)
  }
  const score = readFileSync(`/proc/${pid}/oom_score_adj`, "utf8").trim()
  if (Number(score) !== outOfMemoryScore) refuse(`its score is ${score} when the host has no memory`)
  if (cgroup === undefined) return
  const pids = readFileSync(join(cgroup, "cgroup.procs"), "utf8").split("\n")
  if (!pids.includes(`${pid}`)) refuse("it is not in its control group")
}

function fieldOf(status: string, name: string): string | undefined {
  return new RegExp(`^${name}:[ \\t]*(.*?)[ \\t]*$`, "m").exec(status)?.[1]
}

function expectEqual(status: string, name: string, wanted: string): void {
  const found = fieldOf(status, name)
  if (found !== wanted) refuse(`its ${name} is ${found}`)
}

function refuse(why: string): never {
  throw new AppError("unavailable", `a forked machine is not confined: ${why}`, { subject: { kind: "host" } })
}
