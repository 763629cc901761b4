/** Starts a machine as `saveSnapshot` left it: its own pages over the mapping first, then its device state. */

import { closeSync, write } from "node:fs"
import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { createPipe, readAhead } from "../lib/posix.ts"
import { loadOwnMemory } from "./own-memory.ts"
import type { Machine } from "./starter.ts"

/** `start` gets the descriptor that the device state comes from. `base` is the memory that the pages differ from. */
export async function startFromMemory(options: {
  directory: string
  base: number | undefined
  checksum: string
  start: (state: number) => Promise<Machine>
  awaitMonitor: (machine: Machine) => Promise<unknown>
  kill: (machine: Machine) => Promise<void>
}): Promise<Machine> {
  const { directory, base, checksum } = options
  readAhead(join(directory, "memory"))
  const state = await readFile(join(directory, "state"))

  // QEMU waits at the other end of a pipe for its state until the matching memory is in place.
  const pipe = createPipe()
  let machine: Machine
  try {
    machine = await options.start(pipe.readFd)
  } catch (error) {
    closeSync(pipe.writeFd)
    throw error
  } finally {
    closeSync(pipe.readFd)
  }
  try {
    await options.awaitMonitor(machine)
    await loadOwnMemory({ pid: machine.process.pid, path: join(directory, "memory"), checksum, base })
    await writePipe(pipe.writeFd, state)
  } catch (error) {
    await options.kill(machine)
    throw error
  } finally {
    closeSync(pipe.writeFd)
  }
  return machine
}

async function writePipe(fd: number, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    done += await new Promise<number>((resolve, reject) =>
      write(fd, bytes, done, bytes.length - done, null, (error, count) =>
        error ? reject(error) : resolve(count),
      ),
    )
  }
}
