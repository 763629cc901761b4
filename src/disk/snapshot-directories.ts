/**
 * Copies of sandboxes, each in a directory with the layout of a sandbox's: disk.qcow2, and the memory in
 * `snapshot`. A finished copy has a manifest of sizes and checksums. The manifest is written last, the copy is
 * committed by a rename, and it never changes again. So sandboxes share its memory by hard links, while each sandbox
 * that starts from it gets its own copy of the disk.
 */

import { link, mkdir, readdir, rename, rm, stat } from "node:fs/promises"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { z } from "zod"
import { renameDurably, syncPath, writeSynced } from "../lib/durable.ts"
import { errorCodeOf } from "../lib/error-code.ts"
import { openSealedJson, sealJson } from "../lib/sealed-json.ts"
import { fileChecksum } from "../lib/sparse-file.ts"
import { copyFileWithChecksum } from "./copy-file.ts"
import { type Disks, diskFull } from "./disks.ts"
import { LiveCopy } from "./live-copy.ts"

const unfinished = "tmp-"
const diskFile = "disk.qcow2"
const memoryDirectory = "snapshot"
const manifestFile = "manifest.json"
/** The memory's own pages. The loader checks them against their manifest while it reads them. */
const memoryPages = join(memoryDirectory, "memory")

const Manifest = z.object({
  files: z.record(z.string(), z.object({ bytes: z.int(), checksum: z.string() })),
})
type Manifest = z.infer<typeof Manifest>

export class Snapshots {
  readonly #directory: string
  readonly #disks: Disks
  /** Disks of drafts that are being copied, and the checksums that were computed along the way. */
  readonly #copies = new Map<string, LiveCopy>()
  readonly #diskChecksums = new Map<string, string>()

  constructor(options: { dataDir: string; disks: Disks }) {
    this.#directory = join(options.dataDir, "snapshots")
    this.#disks = options.disks
  }

  async begin(id: string): Promise<string> {
    const directory = this.draftOf(id)
    await this.#abandon(id)
    await mkdir(directory, { recursive: true, mode: 0o700 })
    return directory
  }

  async copyAhead(options: { id: string; sandboxId: string; signal: AbortSignal }): Promise<void> {
    try {
      await this.#copyOf(options).catchUp(options)
    } catch (cause) {
      throw asDiskFull(cause)
    }
  }

  async capture(options: {
    id: string
    sandboxId: string
    storedMemory: boolean
    signal: AbortSignal
  }): Promise<void> {
    const from = this.#disks.directoryOf(options.sandboxId)
    try {
      const checksum = await this.#copyOf(options).finish(options)
      if (checksum !== undefined) this.#diskChecksums.set(options.id, checksum)
      if (options.storedMemory) await linkMemory(from, this.draftOf(options.id))
    } catch (cause) {
      throw asDiskFull(cause)
    }
  }

  async commit(id: string): Promise<{ bytes: number }> {
    const draft = this.draftOf(id)
    const manifest: Manifest = { files: {} }
    let bytes = 0
    try {
      for (const name of await filesBelow(draft)) {
        const path = join(draft, name)
        await syncPath(path)
        const { size, blocks } = await stat(path)
        const known = name === diskFile ? this.#diskChecksums.get(id) : undefined
        manifest.files[name] = { bytes: size, checksum: known ?? (await fileChecksum(path)) }
        bytes += blocks * 512
      }
      await writeSynced(join(draft, manifestFile), sealJson(manifest))
      if (manifest.files[memoryPages]) await syncPath(join(draft, memoryDirectory))
      await renameDurably(draft, this.#finalOf(id))
    } catch (cause) {
      throw asDiskFull(cause)
    }
    this.#forget(id)
    return { bytes }
  }

  async #abandon(id: string): Promise<void> {
    this.#forget(id)
    await rm(this.draftOf(id), { recursive: true, force: true })
  }

  async place(options: {
    id: string
    sandboxId: string
    draft?: { isLast: boolean }
    signal: AbortSignal
  }): Promise<{ hasMemory: boolean }> {
    if (options.draft) return this.#placeDraft({ ...options, ...options.draft })
    const from = this.#finalOf(options.id)
    const manifest = await readManifest(from)
    const disk = manifest.files[diskFile]
    if (!disk) throw damaged(`${manifestFile} names no disk`)
    await checkFiles(from, manifest)
    return this.#place(options.sandboxId, async (to) => {
      const { checksum } = await copyFileWithChecksum(join(from, diskFile), join(to, diskFile), options)
      if (checksum !== disk.checksum) throw damaged("its disk was changed")
      const hasMemory = manifest.files[memoryPages] !== undefined
      if (hasMemory) await linkMemory(from, to)
      return { hasMemory }
    })
  }

  /** Places a draft's files in a sandbox: the last sandbox gets the files themselves, the others get copies. */
  async #placeDraft(options: {
    id: string
    sandboxId: string
    isLast: boolean
    signal: AbortSignal
  }): Promise<{ hasMemory: boolean }> {
    const from = this.draftOf(options.id)
    const hasMemory = (await readdir(from)).includes(memoryDirectory)
    return this.#place(options.sandboxId, async (to) => {
      if (options.isLast) await rename(join(from, diskFile), join(to, diskFile))
      else await copyFileWithChecksum(join(from, diskFile), join(to, diskFile), options)
      if (hasMemory) await linkMemory(from, to)
      return { hasMemory }
    })
  }

  async remove(id: string): Promise<void> {
    // A directory without its manifest is not a snapshot any more, even if the removal is interrupted.
    await rm(join(this.#finalOf(id), manifestFile), { force: true })
    await rm(this.#finalOf(id), { recursive: true, force: true })
    await this.#abandon(id)
  }

  async list(): Promise<string[]> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 })
    return (await readdir(this.#directory)).filter((name) => !name.startsWith(unfinished))
  }

  async removeUnfinished(): Promise<void> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 })
    for (const name of await readdir(this.#directory)) {
      if (name.startsWith(unfinished)) await rm(join(this.#directory, name), { recursive: true, force: true })
    }
  }

  async #place<T>(sandboxId: string, fill: (directory: string) => Promise<T>): Promise<T> {
    const directory = this.#disks.directoryOf(sandboxId)
    try {
      await mkdir(directory, { recursive: true, mode: 0o700 })
      return await fill(directory)
    } catch (cause) {
      await rm(directory, { recursive: true, force: true })
      throw asDiskFull(cause)
    }
  }

  #copyOf({ id, sandboxId }: { id: string; sandboxId: string }): LiveCopy {
    let copy = this.#copies.get(id)
    if (!copy) {
      copy = new LiveCopy({ from: this.#disks.overlayOf(sandboxId), to: join(this.draftOf(id), diskFile) })
      this.#copies.set(id, copy)
    }
    return copy
  }

  #forget(id: string): void {
    this.#copies.delete(id)
    this.#diskChecksums.delete(id)
  }

  /** The draft's directory. */
  draftOf(id: string): string {
    return join(this.#directory, `${unfinished}${id}`)
  }

  diskOf({ id, isDraft }: { id: string; isDraft: boolean }): string {
    return join(isDraft ? this.draftOf(id) : this.#finalOf(id), diskFile)
  }

  #finalOf(id: string): string {
    return join(this.#directory, id)
  }
}

async function readManifest(directory: string): Promise<Manifest> {
  const file = Bun.file(join(directory, manifestFile))
  if (!(await file.exists())) throw damaged(`${manifestFile} is missing`)
  const parsed = Manifest.safeParse(openSealedJson(await file.text()))
  if (!parsed.success) throw damaged(`${manifestFile} was changed`)
  return parsed.data
}

/** Checks all files but the two large ones, which their readers check. */
async function checkFiles(directory: string, manifest: Manifest): Promise<void> {
  for (const [name, { bytes, checksum }] of Object.entries(manifest.files)) {
    const path = join(directory, name)
    const size = (await Bun.file(path).exists()) ? Bun.file(path).size : undefined
    if (size !== bytes) throw damaged(size === undefined ? `${name} is missing` : `${name} was changed`)
    if (name === diskFile || name === memoryPages) continue
    if ((await fileChecksum(path)) !== checksum) throw damaged(`${name} was changed`)
  }
}

function damaged(what: string): AppError {
  return new AppError("unavailable", `the snapshot is damaged: ${what}`, {
    hint: "delete it, or restore the data directory's snapshots from a backup",
    retryable: false,
  })
}

/** Published memory never changes, so several directories can share its files. */
async function linkMemory(from: string, to: string): Promise<void> {
  await mkdir(join(to, memoryDirectory), { mode: 0o700 })
  for (const name of await readdir(join(from, memoryDirectory))) {
    await link(join(from, memoryDirectory, name), join(to, memoryDirectory, name))
  }
}

/** Files with their paths below the directory, except the manifest. */
async function filesBelow(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true })
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(directory.length + 1))
}

function asDiskFull(cause: unknown): unknown {
  return errorCodeOf(cause) === "ENOSPC" ? diskFull(cause) : cause
}
