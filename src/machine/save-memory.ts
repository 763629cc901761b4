/** Saves a paused machine: its own memory pages, its device state, and a manifest that binds its disk to them. */

import { mkdir, open, rename, rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { renameDurably, syncPath } from "../lib/durable.ts"
import { bindDisk, diskPathOf } from "./bound-disk.ts"
import { saveDeviceState } from "./device-state.ts"
import { diskFull, isFull } from "./full-disk.ts"
import type { Halts } from "./halt.ts"
import { saveOwnMemory } from "./own-memory.ts"
import { type PluggedDisk, saveDisk } from "./plugged-disks.ts"
import { kitOf, stateFingerprintOf } from "./process.ts"
import type { Qmp } from "./qmp.ts"
import {
  manifestName,
  manifestText,
  type SnapshotManifest,
  snapshotDirectory,
  unfinished,
} from "./saved-memory.ts"
import type { Machine } from "./starter.ts"
import { sha256 } from "./template-files.ts"

const qmpDeadlineMs = 10_000

/**
 * Writes a paused machine's memory and device state beside its disk, or to `directory` for a copy; the caller
 * then syncs the files after the machine has resumed. The machine stays paused and can be resumed. The signal
 * cancels the save.
 */
export async function saveSnapshot(
  machine: Machine,
  means: { monitor: Qmp; halts: Halts; qemu: SnapshotManifest["qemu"]; disks: readonly PluggedDisk[] },
  options: { directory?: string; signal?: AbortSignal } = {},
): Promise<void> {
  const { monitor, halts, qemu, disks } = means
  const isCopy = options.directory !== undefined
  const final = snapshotDirectory(options.directory ?? machine.directory)
  const beside = unfinished(final)
  await using undo = new AsyncDisposableStack()
  await rm(beside, { recursive: true, force: true })
  await mkdir(beside, { mode: 0o700 })
  undo.defer(() => rm(beside, { recursive: true, force: true }))

  // The fingerprint it was started with: another build or another QEMU may have started it.
  const startedAs = stateFingerprintOf(machine.process.pid)
  const kit = kitOf(machine.process.pid)
  // The guest's pending writes may not be on the disk yet.
  if ((await halts.read(monitor)) === "disk_full") throw diskFull()
  const state = await saveDeviceState(machine, monitor)
  await writeFile(join(beside, "state"), state, { flag: "wx", mode: 0o600 })

  await using file = await open(join(beside, "memory"), "wx", 0o600)
  const memory = await saveOwnMemory({ pid: machine.process.pid, fd: file.fd, signal: options.signal })
  // QEMU flushes its disk's tables again without reporting errors; the flush succeeds if there is space.
  await monitor.command("stop", {}, { deadlineMs: qmpDeadlineMs })
  if (await isFull(machine.directory)) throw diskFull()
  const manifest: SnapshotManifest = {
    stateFingerprint: startedAs ?? "unknown",
    ...(qemu && { qemu }),
    ...(kit !== undefined && { kit }),
    ...(disks.length > 0 && { disks: await Promise.all(disks.map(saveDisk)) }),
    memoryBase: machine.memoryBase,
    state: { bytes: state.length, sha256: sha256(state) },
    memory,
    disk: await bindDisk(diskPathOf(machine.directory)),
  }
  await writeFile(join(beside, manifestName), manifestText(manifest), { flag: "wx", mode: 0o600 })
  if (isCopy) {
    await rename(beside, final)
  } else {
    // Syncing them together waits for one journal commit of the file system instead of one each.
    const parts = ["state", "memory", manifestName].map((name) => join(beside, name))
    const written = disks.filter(({ isReadOnly }) => !isReadOnly).map(({ path }) => path)
    await Promise.all([...parts, diskPathOf(machine.directory), ...written].map(syncPath))
    await rm(final, { recursive: true, force: true })
    await renameDurably(beside, final)
  }
  undo.move()
}
