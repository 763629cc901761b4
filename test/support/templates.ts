/**
 * An installation's templates as they are on disk and in the daemon's memory: what all sandboxes start from must never
 * change.
 */

import { readdirSync, readFileSync, readlinkSync } from "node:fs"
import { join } from "node:path"
import type { Installation } from "./installation.ts"

const parts = ["memory", "state", "disk.qcow2", "blank.qcow2"]

/** Returns the hash of every file of every template, by path. */
export function templateHashes(own: Installation): Record<string, string> {
  const directory = join(own.dataDir, "templates")
  const files = readdirSync(directory)
    .filter((id) => !id.startsWith("tmp-"))
    .flatMap((id) => parts.map((part) => join(directory, id, part)))
  return Object.fromEntries(files.map((path) => [path, sha256(path)]))
}

/** Returns the hashes of the memories that clones map, which the daemon holds. */
export function mappedTemplateHashes(own: Installation): string[] {
  const held = `/proc/${own.daemonPid()}/fd`
  return readdirSync(held)
    .map((fd) => join(held, fd))
    .filter((path) => linkOf(path).startsWith("/memfd:bhatti-template "))
    .map(sha256)
    .toSorted()
}

/** The directory of the one template of that size. */
export function templateOfSize(own: Installation, memoryMib: number): string {
  const directory = join(own.dataDir, "templates")
  const found = readdirSync(directory)
    .map((id) => join(directory, id))
    .filter((path) => {
      const manifest = JSON.parse(readFileSync(join(path, "manifest.json"), "utf8"))
      return manifest.shape.memoryMib === memoryMib
    })
  if (found.length !== 1) throw new Error(`${found.length} templates have ${memoryMib} MB`)
  return found[0] ?? ""
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path)
  } catch (error) {
    // It may be closed while it is looked at.
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return ""
    throw error
  }
}

function sha256(path: string): string {
  const { exitCode, stdout, stderr } = Bun.spawnSync(["sha256sum", path])
  if (exitCode !== 0) throw new Error(`sha256sum ${path}: ${stderr}`)
  return stdout.toString().slice(0, 64)
}
