/**
 * Saved memory for a machine that is forked from a zygote: whether it fits, and what the fork is given. zygote/wake.c
 * is the other end.
 */

import { closeSync } from "node:fs"
import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { createMemoryFile, readAhead, sealMemoryFile } from "../lib/posix.ts"
import type { ProcessIdentity } from "../lib/process-identity.ts"
import { loadOwnMemory, savedRuns } from "./own-memory.ts"
import { stateFingerprintOf } from "./process.ts"
import { readSnapshot, type SnapshotManifest, snapshotDirectory } from "./saved-memory.ts"
import type { Template } from "./template-files.ts"

/** More takes long to load, beside which the start of a QEMU is little. */
const memoryBytesMax = 256 * 1024 * 1024

/** Returns undefined unless the saved memory, which must have been checked, is of such a machine as the zygote. */
export async function findForkable(
  zygote: { process: ProcessIdentity; template: Pick<Template, "kit"> },
  directory: string,
): Promise<{ directory: string; manifest: SnapshotManifest } | undefined> {
  const snapshot = snapshotDirectory(directory)
  const found = await readSnapshot(snapshot)
  if ("damage" in found) return undefined
  const { manifest } = found
  const fits =
    manifest.memoryBase === "template" &&
    manifest.stateFingerprint === stateFingerprintOf(zygote.process.pid) &&
    manifest.kit === zygote.template.kit &&
    (manifest.disks ?? []).length === 0 &&
    manifest.memory.bytes <= memoryBytesMax
  return fits ? { directory: snapshot, manifest } : undefined
}

export type ForkOrder = Disposable & { fd: number; load: (pid: number) => Promise<void> }

/** Makes the file that zygote/zygote.h describes. `base` is the template's memory. */
export async function orderOf(
  { directory, manifest }: { directory: string; manifest: SnapshotManifest },
  base: number,
): Promise<ForkOrder> {
  const path = join(directory, "memory")
  readAhead(path)
  const state = await readFile(join(directory, "state"))
  const runs = savedRuns(path)
  const head = new Uint32Array([runs.length, 0, ...runs.flatMap(({ page, pages }) => [page, pages])])
  const bytes = Buffer.concat([new Uint8Array(head.buffer), state])
  const fd = createMemoryFile({ name: "bhatti-wake", bytes: bytes.length })
  try {
    await Bun.write(Bun.file(`/proc/self/fd/${fd}`), bytes)
    sealMemoryFile(fd)
  } catch (error) {
    closeSync(fd)
    throw error
  }
  const load = (pid: number) => loadOwnMemory({ pid, path, checksum: manifest.memory.checksum, base })
  return { fd, load, [Symbol.dispose]: () => closeSync(fd) }
}
