/**
 * Memory that a machine shares with this host. QEMU maps it into a device; the daemon reads and writes it as a file
 * through QEMU's own descriptor, so that a later daemon finds it too.
 */

import { closeSync, fstatSync } from "node:fs"
import { AppError } from "@bhatti/contract/errors"
import { borrowDescriptor, createMemoryFile, fixMemoryFile, isFixedMemoryFile } from "../lib/posix.ts"
import { isAlive, type ProcessIdentity } from "../lib/process-identity.ts"
import { descriptors, sharedMemoryMib } from "./command-line.ts"

const bytes = sharedMemoryMib * 1024 * 1024

/** Memory for one machine. Its size is sealed, so that no mapping of it can be truncated. */
export function makeSharedMemory(): number {
  const fd = createMemoryFile({ name: "bhatti-shared", bytes })
  fixMemoryFile(fd)
  return fd
}

/**
 * Opens the shared memory of a running machine. QEMU may have replaced it with anything it can open, but gains no
 * rights by that. Anything that is not such memory is refused, for example a pipe, which could block the daemon.
 */
export function openSharedMemory(process: ProcessIdentity): number {
  if (!isAlive(process)) throw new AppError("unavailable", "the machine has ended")
  const fd = borrowDescriptor({ pid: process.pid, fd: descriptors.shared })
  // The process may have exited meanwhile, and its pid may have been reused.
  if (isFixedMemoryFile(fd) && fstatSync(fd).size === bytes && isAlive(process)) return fd
  closeSync(fd)
  throw new AppError("unavailable", "the machine shares no memory with this host")
}
