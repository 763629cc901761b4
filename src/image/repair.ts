/**
 * The initramfs of a boot that repairs the guest's root filesystem: the ordinary one plus this host's e2fsck with
 * its libraries. The guest runs it on its own disk, so the host never reads a guest's filesystem.
 */

import { closeSync, writeSync } from "node:fs"
import { readFile } from "node:fs/promises"
import { basename } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { createMemoryFile } from "../lib/posix.ts"
import { type CpioEntry, packCpio } from "./cpio.ts"

const programPath = "/usr/sbin:/sbin:/usr/bin:/bin"
const lddDeadlineMs = 10_000
/** The kernel reads concatenated archives at multiples of this offset. */
const archiveAlignment = 512

/** The argument that `agent/repair.go` looks for on the kernel's command line. */
export const repairArguments = ["bhatti.repair"]

type Kernel = {
  hash: string
  vmlinux: string
  initramfs: string
  kit?: { hash: string; file: string } | undefined
}

/** Dispose of it once the machine has started. */
export async function repairKernel(kernel: Kernel): Promise<Kernel & { arguments: string[] } & Disposable> {
  const parts = [await readFile(kernel.initramfs), packCpio(await repairEntries())]
  const padded = parts.map((part) =>
    Buffer.concat([part, Buffer.alloc(-part.length & (archiveAlignment - 1))]),
  )
  const bytes = Buffer.concat(padded)
  // Kept in memory, since the host's disk may be the problem.
  const fd = createMemoryFile({ name: "bhatti-repair", bytes: bytes.length })
  for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done, bytes.length - done, done)
  return {
    ...kernel,
    initramfs: `/proc/self/fd/${fd}`,
    arguments: repairArguments,
    [Symbol.dispose]: () => closeSync(fd),
  }
}

async function repairEntries(): Promise<CpioEntry[]> {
  const program = Bun.which("e2fsck", { PATH: programPath })
  if (!program) throw cannotRepair()
  const { exitCode, stdout } = Bun.spawnSync(["ldd", program], { timeout: lddDeadlineMs })
  if (exitCode !== 0) throw cannotRepair()
  const libraries = [...stdout.toString().matchAll(/(\/\S+) \(0x/g)].map(([, path = ""]) => path)
  const file = async (path: string, name: string): Promise<CpioEntry> => ({
    kind: "file",
    path: `repair/${name}`,
    mode: 0o755,
    content: await readFile(path),
  })
  return [
    { kind: "directory", path: "repair", mode: 0o755 },
    await file(program, "e2fsck"),
    ...(await Promise.all(libraries.map((path) => file(path, nameInGuest(path))))),
  ]
}

/** The loader has a fixed name, by which the guest starts it. */
function nameInGuest(path: string): string {
  return basename(path).startsWith("ld-linux") ? "ld.so" : basename(path)
}

function cannotRepair(): AppError {
  return new AppError("unavailable", "this host has no e2fsck, which repairs file systems", {
    hint: "the operator installs it: sudo apt-get install e2fsprogs",
    retryable: false,
  })
}
