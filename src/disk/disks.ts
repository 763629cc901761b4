/**
 * Sandboxes' disks and their directories. An overlay is a copy of its template's empty one: 200 KB, and no program
 * to start. QEMU gets descriptors, so only the daemon needs to be able to read the files here.
 */

import { constants, mkdirSync, statfsSync } from "node:fs"
import { copyFile, mkdir, readdir, stat } from "node:fs/promises"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { errorCodeOf } from "../lib/error-code.ts"
import { isMissing } from "../lib/missing-files.ts"
import { removeTree } from "../lib/remove-tree.ts"

/** Paths below a sandbox's directory: its saved memory, finished or still being written. */
const savedMemory = /^snapshot(\.part)?(\/|$)/

type Template = { id: string; diskMib: number; blankOverlayPath: string }

export class Disks {
  readonly #directory: string

  constructor(options: { dataDir: string }) {
    this.#directory = join(options.dataDir, "sandboxes")
  }

  directoryOf(id: string): string {
    return join(this.#directory, id)
  }

  overlayOf(id: string): string {
    return join(this.directoryOf(id), "disk.qcow2")
  }

  async createSandbox(options: { id: string; template: Template; isForked?: boolean }): Promise<void> {
    const directory = this.directoryOf(options.id)
    try {
      mkdirSync(directory, { recursive: true, mode: 0o700 })
      if (options.isForked) return
      await copyFile(options.template.blankOverlayPath, this.overlayOf(options.id), constants.COPYFILE_EXCL)
    } catch (cause) {
      await removeTree(directory)
      if (errorCodeOf(cause) === "ENOSPC") throw diskFull(cause)
      throw cause
    }
  }

  async removeSandbox(id: string): Promise<void> {
    await removeTree(this.directoryOf(id))
  }

  /** Changes with every write to the disk. */
  async stampOf(id: string): Promise<string> {
    const { size, mtimeNs } = await stat(this.overlayOf(id), { bigint: true })
    return `${size} ${mtimeNs}`
  }

  /** Names of the existing directories, which are sandboxes' ids. */
  async listSandboxes(): Promise<string[]> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 })
    return readdir(this.#directory)
  }

  async freeMib(): Promise<number> {
    const { bavail, bsize } = statfsSync(this.#directory)
    return Math.floor((bavail * bsize) / (1024 * 1024))
  }

  /** `overlay` counts the files that the machine's QEMU writes on its own. */
  async measureMib(id: string, part: "all" | "counted" | "overlay"): Promise<number> {
    const directory = this.directoryOf(id)
    const names =
      part === "overlay"
        ? ["disk.qcow2", "device-state"]
        : await readdir(directory, { recursive: true }).catch(whenGone([]))
    let blocks = 0
    for (const name of names) {
      if (part === "counted" && savedMemory.test(name)) continue
      blocks += (await stat(join(directory, name)).catch(whenGone({ blocks: 0 }))).blocks
    }
    const mib = (blocks * 512) / (1024 * 1024)
    return part === "overlay" ? mib : Math.ceil(mib)
  }
}

/** A caller that does not hold the sandbox's turn may see it while it is being started, stopped or removed. */
function whenGone<T>(instead: T): (error: unknown) => T {
  return (error) => {
    if (isMissing(error)) return instead
    throw error
  }
}

export function diskFull(cause: unknown): AppError {
  return new AppError("unavailable", "the host's disk is full", {
    cause,
    hint: "free some space in the data directory's file system, then try again",
  })
}
