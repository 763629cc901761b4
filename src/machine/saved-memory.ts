/**
 * A memory snapshot's directory: device state, own pages, and a manifest that says which files belong together.
 * Files that the manifest does not prove are not used.
 */

import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { z } from "zod"
import { whenMissing } from "../lib/missing-files.ts"
import { removeTree } from "../lib/remove-tree.ts"
import { openSealedJson, sealJson } from "../lib/sealed-json.ts"
import { DiskBinding, diskPathOf, isBoundDisk } from "./bound-disk.ts"
import { SavedDisk } from "./plugged-disks.ts"
import { KitPath } from "./process.ts"
import { sha256 } from "./template-files.ts"

export const SnapshotManifest = z.object({
  stateFingerprint: z.string(),
  /** The build that wrote it, for messages. Snapshots of earlier versions do not say. */
  qemu: z.object({ id: z.string(), name: z.string() }).optional(),
  /** Path of its kit disk below the data directory. Without one its topology is 2. */
  kit: KitPath.optional(),
  /** The disks beside its own. */
  disks: z.array(SavedDisk).optional(),
  memoryBase: z.enum(["template", "empty"]),
  state: z.object({ bytes: z.int(), sha256: z.string() }),
  memory: z.object({ bytes: z.int(), checksum: z.string() }),
  /** The disk that the memory belongs to. Snapshots of earlier versions do not say. */
  disk: DiskBinding.optional(),
})
export type SnapshotManifest = z.infer<typeof SnapshotManifest>

export const manifestName = "manifest.json"

export function snapshotDirectory(directory: string): string {
  return join(directory, "snapshot")
}

/** Path for writing a snapshot until it is complete. */
export function unfinished(directory: string): string {
  return `${directory}.part`
}

/** Removes the snapshot, and a partial one that a crash left. */
export async function removeSnapshot(directory: string): Promise<void> {
  const final = snapshotDirectory(directory)
  await removeTree(final)
  await removeTree(unfinished(final))
}

export function manifestText(manifest: SnapshotManifest): string {
  return sealJson(manifest)
}

/** Checks only the size of the memory: its loader checks the rest. */
export async function readSnapshot(
  directory: string,
): Promise<{ manifest: SnapshotManifest } | { damage: string }> {
  const text = await readFile(join(directory, manifestName)).catch(whenMissing)
  const state = await readFile(join(directory, "state")).catch(whenMissing)
  const memory = Bun.file(join(directory, "memory"))
  const hasMemory = await memory.exists()
  if (!text && !state && !hasMemory) return { damage: "there is no memory snapshot" }
  if (!text) return damaged(manifestName, "is missing")
  const parsed = SnapshotManifest.safeParse(openSealedJson(`${text}`))
  if (!parsed.success) return damaged(manifestName, "was changed")
  const manifest = parsed.data
  if (!state) return damaged("state", "is missing")
  if (state.length !== manifest.state.bytes || sha256(state) !== manifest.state.sha256)
    return damaged("state", "was changed")
  if (!hasMemory) return damaged("memory", "is missing")
  if (memory.size !== manifest.memory.bytes) return damaged("memory", "was changed")
  return { manifest }
}

export type SnapshotCheck = { fits: true; memoryMib: number } | { fits: false; reason: string }

/** `choose` returns the reason if no QEMU can load it. */
export async function checkSnapshot(
  directory: string,
  choose: (manifest: SnapshotManifest) => Promise<{ qemu: unknown } | { reason: string }>,
): Promise<SnapshotCheck> {
  const found = await readSnapshot(snapshotDirectory(directory))
  if ("damage" in found) return { fits: false, reason: found.damage }
  const { manifest } = found
  if (manifest.disk && !(await isBoundDisk(diskPathOf(directory), manifest.disk))) {
    const reason =
      "its disk is not the one that its memory belongs to: disk.qcow2 is an older or another copy"
    return { fits: false, reason }
  }
  const chosen = await choose(manifest)
  if ("reason" in chosen) return { fits: false, reason: chosen.reason }
  return { fits: true, memoryMib: Math.ceil(manifest.memory.bytes / 1024 / 1024) }
}

function damaged(name: string, what: string): { damage: string } {
  return { damage: `its memory snapshot is damaged: ${name} ${what}` }
}
