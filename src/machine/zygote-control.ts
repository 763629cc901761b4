/**
 * Requests to a zygote: a QEMU with our library in it (zygote/), which the daemon stops once its guest is warm and then
 * forks into machines. zygote/zygote.h has the protocol.
 */

import { closeSync } from "node:fs"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { askForSenders, connectUnix, receiveMessage, sendDescriptors } from "../lib/descriptor-passing.ts"
import { identityOf, type ProcessIdentity } from "../lib/process-identity.ts"
import { answerChild, type ChildConfinement, childConfinement } from "./child-confinement.ts"
import { descriptors } from "./command-line.ts"
import type { Confinement, DescriptorFiles } from "./process.ts"

const protocolVersion = 1
const requestBytes = 32
const operations = { check: 1, stop: 2, fork: 3 } as const
/** Roles beside those of `descriptors`. */
const roles = { ...descriptors, output: 1 } as const
const pauseMs = 1

type RoleFiles = Partial<Record<keyof typeof roles, number>>
type Answer = { words: string; pid: number; uid: number }

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
}

/** Returns the new machine's process, which runs. */
export async function forkZygote(
  { directory, process }: { directory: string; process: ProcessIdentity },
  { files, output, confinement, deadlineMs }: Fork,
): Promise<ProcessIdentity> {
  const { pid } = await request(directory, "fork", {
    deadlineMs,
    confinement: childConfinement(process, confinement),
    files: { ...files, output },
  })
  const identity = identityOf(pid)
  if (identity) return identity
  throw new AppError("unavailable", "a forked machine ended as soon as it ran")
}

type Request = { files: RoleFiles; confinement?: ChildConfinement; deadlineMs: number }

/** Asks again while the zygote is busy. */
async function request(
  directory: string,
  operation: keyof typeof operations,
  { files, confinement, deadlineMs }: Request,
): Promise<Answer> {
  const endMs = performance.now() + deadlineMs
  const given = (Object.keys(roles) as (keyof typeof roles)[])
    .filter((role) => files[role] !== undefined)
    .toSorted((one, other) => roles[one] - roles[other])
  const bytes = requestOf(operation, given, confinement)
  const fds = given.flatMap((role) => files[role] ?? [])
  for (;;) {
    const answer = await exchange(directory, { bytes, fds, confinement, endMs })
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

type Exchange = { bytes: Buffer; fds: number[]; confinement: ChildConfinement | undefined; endMs: number }

async function exchange(directory: string, { bytes, fds, confinement, endMs }: Exchange): Promise<Answer> {
  const socket = await connect(zygoteSocket(directory), endMs)
  try {
    askForSenders(socket)
    if (!sendDescriptors(socket, bytes, fds)) throw new AppError("unavailable", "the zygote takes no request")
    for (;;) {
      const received = receiveMessage(socket)
      if (received === "end") throw new AppError("unavailable", "the zygote or its child ended")
      if (received !== "none" && !(confinement && answerChild(socket, received, confinement)))
        return { words: received.bytes.toString(), pid: received.pid, uid: received.uid }
      if (performance.now() > endMs) throw new AppError("unavailable", "the zygote did not answer in time")
      await Bun.sleep(pauseMs)
    }
  } finally {
    closeSync(socket)
  }
}

/** The socket's queue may be full of other requests. */
async function connect(path: string, endMs: number): Promise<number> {
  for (;;) {
    const socket = connectUnix(path, "packets")
    if (socket !== undefined) return socket
    if (performance.now() > endMs) throw new AppError("unavailable", "the zygote takes no connection")
    await Bun.sleep(pauseMs)
  }
}
