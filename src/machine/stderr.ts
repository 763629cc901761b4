/**
 * The output of QEMU processes on standard error, which a hostile guest can cause without limit. Output goes into a
 * pipe of which QEMU holds both ends, so it needs no reader, and the kernel drops what does not fit: at most 64 KiB
 * per process, in no file. The running daemon empties the pipes from time to time and remembers the last lines.
 */

import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs"
import { errorCodeOf } from "../lib/error-code.ts"
import { borrowDescriptor, createPipe, neverWaitAt } from "../lib/posix.ts"
import { isAlive, type ProcessIdentity } from "../lib/process-identity.ts"
import { descriptors } from "./command-line.ts"

/** A read takes as much as a pipe holds; the remembered part is as long as a log line should be. */
const pipeBytes = 65_536
const keptBytes = 8192
const drainMs = 5000
/**
 * Number of rounds for which an ended machine's last output is kept, so that the code that notices the end finds
 * it.
 */
const roundsKept = 24

/** A pipe for one machine; QEMU inherits both ends, and the caller closes its own. */
export function makeStderrPipe(): { readFd: number; writeFd: number } {
  const pipe = createPipe()
  neverWaitAt(pipe.writeFd)
  return pipe
}

/** QEMU sizes the empty file that memory is mapped from; /dev/zero, a booted machine's, cannot be sized. */
const harmless = "ftruncate: Invalid argument\n"

type Pipe = { process: ProcessIdentity; fd: number; last: Buffer; roundsOver: number }

export class StderrPipes {
  readonly #pipes = new Map<number, Pipe>()
  readonly #timer: Timer

  constructor() {
    this.#timer = setInterval(() => {
      for (const pipe of this.#pipes.values()) {
        pipe.roundsOver = drain(pipe) ? 0 : pipe.roundsOver + 1
        if (pipe.roundsOver > roundsKept) this.forget(pipe.process)
      }
    }, drainMs)
    this.#timer.unref()
  }

  /** Opens a new machine's pipe, or QEMU's descriptor for a machine that an earlier daemon started. */
  listen(process: ProcessIdentity, readFd?: number): void {
    if (this.#pipes.has(process.pid) || !isAlive(process)) return
    const borrowed = readFd ?? borrowStderr(process)
    if (borrowed === undefined) return
    try {
      // QEMU may have replaced it.
      if (!fstatSync(borrowed).isFIFO()) return
      this.#pipes.set(process.pid, {
        process,
        fd: reopenStderr(borrowed),
        last: Buffer.alloc(0),
        roundsOver: 0,
      })
    } finally {
      if (readFd === undefined) closeSync(borrowed)
    }
  }

  /** Returns the last output, also of a process that has exited. */
  lastOf({ pid }: ProcessIdentity): string {
    const pipe = this.#pipes.get(pid)
    if (!pipe) return ""
    drain(pipe)
    return pipe.last.toString()
  }

  forget({ pid }: ProcessIdentity): void {
    const pipe = this.#pipes.get(pid)
    if (!pipe) return
    this.#pipes.delete(pid)
    closeSync(pipe.fd)
  }
}

/** Machines started by an older build have no pipe. */
function borrowStderr({ pid }: ProcessIdentity): number | undefined {
  try {
    return borrowDescriptor({ pid, fd: descriptors.stderr })
  } catch {
    return undefined
  }
}

/** Reopens the pipe: through the shared end QEMU could make reads block, and the daemon with them. */
export function reopenStderr(readFd: number): number {
  return openSync(`/proc/self/fd/${readFd}`, constants.O_RDONLY | constants.O_NONBLOCK)
}

/** Returns text written since the last call; undefined if there is none and the writer has exited. */
export function readStderr(pipe: number): Buffer | undefined {
  const bytes = Buffer.alloc(pipeBytes)
  try {
    const count = readSync(pipe, bytes, 0, bytes.length, null)
    if (count === 0) return undefined
    const at = bytes.subarray(0, count).indexOf(harmless)
    if (at < 0) return bytes.subarray(0, count)
    return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + harmless.length, count)])
  } catch (error) {
    if (errorCodeOf(error) === "EAGAIN") return bytes.subarray(0, 0)
    throw error
  }
}

/** Returns false if the machine has ended and written nothing more. */
function drain(pipe: Pipe): boolean {
  const text = readStderr(pipe.fd)
  if (text === undefined) return isAlive(pipe.process)
  if (text.length > 0) pipe.last = Buffer.from(Buffer.concat([pipe.last, text]).subarray(-keptBytes))
  return true
}
