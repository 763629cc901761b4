/**
 * Requests to a zygote: a QEMU with our library in it (zygote/), which the daemon stops once its guest is warm and then
 * forks into machines. zygote/zygote.h has the protocol.
 */

import { closeSync } from "node:fs"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { askForSenders, connectUnix, receiveMessage, sendDescriptors } from "../lib/descriptor-passing.ts"
import { identityOf, isAlive, type ProcessIdentity } from "../lib/process-identity.ts"
import { answerChild, type ChildConfinement, childConfinement } from "./child-confinement.ts"
import { descriptors } from "./command-line.ts"
import { type Confinement, type DescriptorFiles, killProcess } from "./process.ts"

const protocolVersion = 1
const requestBytes = 32
const operations = { check: 1, stop: 2, fork: 3, wake: 4 } as const
/** Roles beside those of `descriptors`. */
const roles = { ...descriptors, output: 1 } as const
const pauseMs = 1
const killDeadlineMs = 5000

type RoleFiles = Partial<Record<keyof typeof roles, number>>
/** `pid` is of its sender, `found` of the process that was found confined. */
type Answer = { words: string; pid: number; found: number | undefined; identity?: ProcessIdentity }

export function zygoteSocket(directory: string): string {
  return join(directory, "zygote.sock")
}

/** Throws, with the reason, unless this QEMU has what a fork needs. */
export async function checkZygote(directory: string, options: { deadlineMs: number }): Promise<void> {
  await request(directory, "check", { ...options, files: {} })
}

/** Stops its vCPUs for good, writes its guest's data to its disk, and waits until its threads are at rest. */
export async function stopZygote(directory: string, options: { deadlineMs: number }): Promise<void> {
  await request(directory, "stop", { ...options, files: {} })
}

export type Fork = {
  /** The child's own, of the roles in ZYGOTE_OWN_ROLES. The caller keeps and closes them. */
  files: DescriptorFiles
  /** Descriptor for its standard output and error. */
  output: number
  confinement: Confinement
  deadlineMs: number
  /**
   * For a machine that goes on from a saved memory, whose order is `files.state`: writes the saved pages into the
   * process. Once its guest may have run, no error is thrown.
   */
  load?: (pid: number) => Promise<void>
}

/**
 * Returns the new machine's process, which runs. A zygote that lets the deadline pass is ended: its queue may hold the
 * request, and with it the machine's files and network device, which another start needs.
 */
export async function forkZygote(
  { directory, process }: { directory: string; process: ProcessIdentity },
  { files, output, confinement, deadlineMs, load }: Fork,
): Promise<ProcessIdentity> {
  const endMs = performance.now() + deadlineMs
  const wanted = childConfinement(process, confinement)
  const asked = { deadlineMs, confinement: wanted, files: { ...files, output }, zygote: process, load }
  const answer = await request(directory, load ? "wake" : "fork", asked).catch(async (error: unknown) => {
    if (performance.now() > endMs)
      await killProcess(process, { deadlineMs: killDeadlineMs }).catch(() => undefined)
    throw error
  })
  checkFound(answer)
  const identity = answer.identity ?? identityOf(answer.pid)
  if (identity) return identity
  throw new AppError("unavailable", "a forked machine ended as soon as it ran")
}

function checkFound({ pid, found }: Pick<Answer, "pid" | "found">): void {
  if (pid === found) return
  throw new AppError("unavailable", "a forked machine is not the process that was found confined")
}

/** With `zygote`, the end of that process ends the wait for a connection. */
type Request = {
  files: RoleFiles
  confinement?: ChildConfinement
  zygote?: ProcessIdentity
  load?: Fork["load"]
  deadlineMs: number
}

/** Asks again while the zygote is busy. */
async function request(
  directory: string,
  operation: keyof typeof operations,
  { files, confinement, zygote, load, deadlineMs }: Request,
): Promise<Answer> {
  const endMs = performance.now() + deadlineMs
  const given = (Object.keys(roles) as (keyof typeof roles)[])
    .filter((role) => files[role] !== undefined)
    .toSorted((one, other) => roles[one] - roles[other])
  const bytes = requestOf(operation, given, confinement)
  const fds = given.flatMap((role) => files[role] ?? [])
  for (;;) {
    const answer = await exchange(directory, { bytes, fds, confinement, zygote, load, endMs })
    const [, verdict, why = ""] = /^(\w+) ?(.*)$/s.exec(answer.words) ?? []
    if (verdict === "ok") return answer
    if (verdict !== "busy" || performance.now() > endMs)
      throw new AppError("unavailable", `the zygote cannot ${operation}: ${why.slice(0, 300)}`)
    await Bun.sleep(20)
  }
}

function requestOf(
  operation: keyof typeof operations,
  given: (keyof typeof roles)[],
  confinement: ChildConfinement | undefined,
): Buffer {
  const bytes = Buffer.alloc(requestBytes)
  bytes.writeUInt32LE(protocolVersion, 0)
  bytes.writeUInt32LE(operations[operation], 4)
  bytes.writeUInt32LE(
    given.reduce((bits, role) => bits + 2 ** roles[role], 0),
    8,
  )
  bytes.writeUInt32LE(confinement?.uid ?? 0, 16)
  bytes.writeBigUInt64LE(BigInt(confinement?.fileBytesMax ?? 0), 24)
  return bytes
}

type Exchange = {
  bytes: Buffer
  fds: number[]
  confinement: ChildConfinement | undefined
  zygote: ProcessIdentity | undefined
  load: Fork["load"]
  endMs: number
}

async function exchange(
  directory: string,
  { bytes, fds, confinement, zygote, load, endMs }: Exchange,
): Promise<Answer> {
  const socket = await connect(zygoteSocket(directory), { zygote, endMs })
  try {
    askForSenders(socket)
    if (!sendDescriptors(socket, bytes, fds)) throw new AppError("unavailable", "the zygote takes no request")
    for (let found: number | undefined; ; ) {
      const received = receiveMessage(socket)
      if (received === "end") throw new AppError("unavailable", "the zygote or its child ended")
      if (received !== "none") {
        const words = received.bytes.toString()
        if (load && words === "empty") await letLoad(socket, { pid: received.pid, found }, load)
        else if (load && words === "ready") return letRun(socket, { pid: received.pid, found })
        else if (!confinement || !answerChild(socket, received, confinement))
          return { words, pid: received.pid, found }
        if (words === "confined") found = received.pid
      }
      if (performance.now() > endMs) throw new AppError("unavailable", "the zygote did not answer in time")
      await Bun.sleep(pauseMs)
    }
  } finally {
    closeSync(socket)
  }
}

async function letLoad(
  socket: number,
  child: Pick<Answer, "pid" | "found">,
  load: (pid: number) => Promise<void>,
): Promise<void> {
  checkFound(child)
  await load(child.pid)
  if (!sendDescriptors(socket, Buffer.from("loaded"), [])) throw endedEarly()
}

/** From this answer on its guest may have run. */
function letRun(socket: number, { pid, found }: Pick<Answer, "pid" | "found">): Answer {
  checkFound({ pid, found })
  const identity = identityOf(pid)
  if (!identity || !sendDescriptors(socket, Buffer.from("start"), [])) throw endedEarly()
  return { words: "ok", pid, found, identity }
}

function endedEarly(): AppError {
  return new AppError("unavailable", "a forked machine ended before it ran")
}

/** The socket's queue may be full of other requests. */
async function connect(path: string, { zygote, endMs }: Pick<Exchange, "zygote" | "endMs">): Promise<number> {
  for (;;) {
    const socket = connectUnix(path, "packets")
    if (socket !== undefined) return socket
    if (performance.now() > endMs || (zygote && !isAlive(zygote)))
      throw new AppError("unavailable", "the zygote takes no connection")
    await Bun.sleep(pauseMs)
  }
}
