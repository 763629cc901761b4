/**
 * Templates on disk and in memory. Each directory under `templates` holds one: sealed memory, device state, frozen
 * disk. Its disk is part of every sandbox made from it, so a template never changes, and the caller removes it only
 * if it knows that no sandbox depends on it.
 */

import {
  closeSync,
  constants,
  existsSync,
  openSync,
  readdirSync,
  renameSync,
  statSync,
  utimesSync,
} from "node:fs"
import { mkdir, readdir, rm, stat } from "node:fs/promises"
import { basename, isAbsolute, join, relative } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { renameDurably, syncPath, writeSynced } from "../lib/durable.ts"
import { isMissing, unlessMissing } from "../lib/missing-files.ts"
import { createMemoryFile } from "../lib/posix.ts"
import type { ProcessIdentity } from "../lib/process-identity.ts"
import { randomHex } from "../lib/random-hex.ts"
import { openSealedJson, sealJson } from "../lib/sealed-json.ts"
import { fileChecksum } from "../lib/sparse-file.ts"
import type { MachineShape } from "./command-line.ts"
import { readTemplateState, saveTemplateState } from "./device-state.ts"
import { readMemory, writeMemory } from "./memory.ts"
import { killProcess } from "./process.ts"
import { agentSocket, qmpSocket } from "./sockets.ts"
import { Manifest } from "./template-manifest.ts"

const killDeadlineMs = 10_000
const mebibyte = 1024 * 1024

export type MachineImage = { name: string; hash: string; file: string; diskMib: number }
/** The kit holds its modules. Kernels that came without one have none. */
export type MachineKernel = { hash: string; vmlinux: string; initramfs: string; kit?: Kit | undefined }
type Kit = { hash: string; file: string }
export type TemplateSpec = {
  image: MachineImage
  kernel: MachineKernel
  cpus: number
  memoryMib: number
  /** Digest of the certificates that its guest trusts. */
  authority?: string
  /** Commands that run in it when it is frozen. */
  programs?: { start: string; ready: string; owner: string | null }
}

export type Template = {
  /** Name of its directory, which sandboxes record. */
  id: string
  /** Fingerprint of the state it fits. */
  fingerprint: string
  shape: MachineShape
  /** The image's raw disk, the backing file of `diskPath`. */
  baseDiskPath: string
  diskMib: number
  /** Path of its kit disk below the data directory. Without one its topology is 2. */
  kit: string | undefined
  statePath: string
  memoryPath: string
  diskPath: string
  /** An empty overlay on the template's disk, copied for every sandbox. */
  blankOverlayPath: string
}

const unfinished = "tmp-"
const touchEveryMs = 60_000

export class TemplateFiles {
  readonly #dataDir: string
  readonly #directory: string
  readonly #onDamage: (error: AppError) => void
  /** Templates whose disk was proved intact, and the manifest that proves the other files. */
  readonly #known = new Map<string, { template: Template; manifest: Manifest }>()
  /**
   * Resolves to the template if it can be cloned, or to undefined once it was found damaged, which is not checked
   * again.
   */
  readonly #clonable = new Map<string, Promise<Template | undefined>>()
  readonly #used = new Map<string, { atMs: number; writtenMs: number }>()
  readonly #memories = new Map<string, Promise<number>>()
  #emptyMemory: number | undefined

  /** `onDamage` is called once for each template taken out of use. */
  constructor(dataDir: string, onDamage: (error: AppError) => void) {
    this.#dataDir = dataDir
    this.#directory = join(dataDir, "templates")
    this.#onDamage = onDamage
  }

  /** Throws unless disks can use it as backing file. Users of its other parts report their damage. */
  async get(id: string): Promise<Template> {
    this.#touch(id)
    return (await this.#read(id)).template
  }

  /** Returns the intact template of that fingerprint, if any. */
  async find(fingerprint: string): Promise<Template | undefined> {
    for (const id of this.list()) {
      if (!id.startsWith(fingerprint)) continue
      const template = await this.#findClonable(id)
      if (template?.fingerprint !== fingerprint) continue
      // Removal checks the time of use and hides the directory in one step, so a template returned here is not
      // being removed.
      if (!existsSync(join(this.#directory, id))) continue
      this.#touch(id)
      return template
    }
    return undefined
  }

  /** Returns its sealed memory, loaded and checked once, and kept. This object owns the descriptor. */
  memory(template: Template): Promise<number> {
    const loaded = this.#memories.get(template.id)
    if (loaded) return loaded
    const loading = this.#load(template)
    this.#memories.set(template.id, loading)
    loading.catch(() => this.#memories.delete(template.id))
    return loading
  }

  /**
   * Empty memory of any size, for a machine that boots from its disk. A private mapping of it is anonymous memory;
   * with an empty memory file each page would take space twice, since the kernel puts the page that it copies into
   * the file.
   */
  emptyMemory(): number {
    this.#emptyMemory ??= openSync("/dev/zero", constants.O_RDWR)
    return this.#emptyMemory
  }

  /** Ids of the finished templates. */
  list(): string[] {
    return this.#entries().filter((name) => !name.startsWith(unfinished))
  }

  /**
   * Returns false if it was requested within that time; then it stays. A crash in the middle leaves an unfinished
   * directory.
   */
  async remove(id: string, options: { unusedForMs: number }): Promise<boolean> {
    if (Date.now() - this.#lastUsedMs(id) < options.unusedForMs) return false
    const hidden = join(this.#directory, `${unfinished}${id}`)
    renameSync(join(this.#directory, id), hidden)
    const memory = this.#memories.get(id)
    this.#memories.delete(id)
    this.#known.delete(id)
    this.#clonable.delete(id)
    if (memory) closeSync(await memory)
    await rm(hidden, { recursive: true, force: true })
    return true
  }

  /** Shapes and kit disks of all templates; undefined while one of them cannot be read. */
  async machines(): Promise<Pick<Manifest, "shape" | "kit">[] | undefined> {
    const manifests = await Promise.all(this.list().map((id) => this.#readManifest(id)))
    const found = manifests.flatMap((manifest) => manifest ?? [])
    return found.length < manifests.length ? undefined : found
  }

  /**
   * Closes the memory of templates that one account alone uses and has not used within that time. Clones that run keep
   * it, and the next one loads it again.
   */
  async releaseOwned(options: { unusedForMs: number }): Promise<void> {
    for (const [id, loading] of this.#memories) {
      const isOwned = Boolean(this.#known.get(id)?.manifest.owner)
      if (!isOwned || Date.now() - this.#lastUsedMs(id) < options.unusedForMs) continue
      this.#memories.delete(id)
      closeSync(await loading)
    }
  }

  /** Each template's size, image and time of last use. Leaves out templates with a damaged manifest. */
  async measure(): Promise<
    { id: string; mib: number; imageHash: string; owner: string | null; lastUsedMs: number }[]
  > {
    const manifests = new Map<string, Manifest>()
    for (const id of this.list()) {
      const manifest = await this.#readManifest(id)
      if (manifest) manifests.set(id, manifest)
    }
    return Promise.all(
      [...manifests].map(async ([id, { image, owner = null }]) => {
        let blocks = 0
        for (const name of await readdir(join(this.#directory, id))) {
          blocks += (await stat(join(this.#directory, id, name))).blocks
        }
        const mib = Math.ceil((blocks * 512) / mebibyte)
        return { id, mib, imageHash: image.hash, owner, lastUsedMs: this.#lastUsedMs(id) }
      }),
    )
  }

  /** Stored as the manifest's modification time, for the next daemon, but not on every create. */
  #touch(id: string): void {
    const nowMs = Date.now()
    const before = this.#used.get(id)
    this.#used.set(id, { atMs: nowMs, writtenMs: before?.writtenMs ?? 0 })
    if (before && nowMs - before.writtenMs < touchEveryMs) return
    this.#used.set(id, { atMs: nowMs, writtenMs: nowMs })
    const path = join(this.#directory, id, "manifest.json")
    if (existsSync(path)) utimesSync(path, nowMs / 1000, nowMs / 1000)
  }

  #lastUsedMs(id: string): number {
    const atMs = this.#used.get(id)?.atMs
    return atMs ?? statSync(join(this.#directory, id, "manifest.json")).mtimeMs
  }

  /** Directories of unfinished templates. */
  listUnfinished(): string[] {
    return this.#entries()
      .filter((name) => name.startsWith(unfinished))
      .map((name) => join(this.#directory, name))
  }

  async begin(options: {
    fingerprint: string
    shape: MachineShape
    spec: TemplateSpec
  }): Promise<TemplateDraft> {
    const id = `${options.fingerprint}-${randomHex(4)}`
    const directory = join(this.#directory, `${unfinished}${id.slice(-8)}`)
    await mkdir(directory, { recursive: true, mode: 0o700 })
    const { file, ...image } = options.spec.image
    const { kit } = options.spec.kernel
    return {
      directory,
      diskPath: join(directory, "disk.qcow2"),
      blankOverlayPath: join(directory, "blank.qcow2"),
      statePath: join(directory, "state"),
      memoryFd: createMemoryFile({ name: "bhatti-boot", bytes: options.shape.memoryMib * mebibyte }),
      finalDirectory: join(this.#directory, id),
      manifest: {
        fingerprint: options.fingerprint,
        shape: options.shape,
        image: { name: image.name, hash: image.hash, diskMib: image.diskMib, file: this.#inside(file) },
        ...(options.spec.programs && { owner: options.spec.programs.owner }),
        ...(kit && { kit: this.#inside(kit.file) }),
      },
    }
  }

  /** Freezes the draft's machine, ends it and makes the template visible. */
  async commit(draft: TemplateDraft, machine: ProcessIdentity): Promise<Template> {
    await saveTemplateState(draft.directory)
    await killProcess(machine, { deadlineMs: killDeadlineMs })

    const bytes = draft.manifest.shape.memoryMib * mebibyte
    const checksum = await writeMemory({ fd: draft.memoryFd, bytes, path: join(draft.directory, "memory") })
    const state = await readTemplateState(draft.statePath)
    const manifest: Manifest = {
      ...draft.manifest,
      files: {
        memory: { bytes, checksum },
        state: { bytes: state.length, sha256: sha256(state) },
        disk: { checksum: await fileChecksum(draft.diskPath) },
        blank: { checksum: await fileChecksum(draft.blankOverlayPath) },
      },
    }
    for (const path of [agentSocket(draft.directory), qmpSocket(draft.directory)]) {
      await rm(path, { force: true })
    }
    for (const path of [draft.statePath, draft.diskPath, draft.blankOverlayPath]) await syncPath(path)
    await writeSynced(join(draft.directory, "manifest.json"), sealJson(manifest))
    await renameDurably(draft.directory, draft.finalDirectory)
    return this.get(draft.finalDirectory.slice(this.#directory.length + 1))
  }

  async #read(id: string): Promise<{ template: Template; manifest: Manifest }> {
    const known = this.#known.get(id)
    if (known) return known
    const directory = join(this.#directory, id)
    const manifest = await this.#readManifest(id)
    if (!manifest) throw damaged(id, "its manifest.json is missing or was changed")
    const template: Template = {
      id,
      fingerprint: manifest.fingerprint,
      shape: manifest.shape,
      baseDiskPath: isAbsolute(manifest.image.file)
        ? manifest.image.file
        : join(this.#dataDir, manifest.image.file),
      diskMib: manifest.image.diskMib,
      kit: manifest.kit,
      statePath: join(directory, "state"),
      memoryPath: join(directory, "memory"),
      diskPath: join(directory, "disk.qcow2"),
      blankOverlayPath: join(directory, "blank.qcow2"),
    }
    await checkFile(id, template.diskPath, manifest.files.disk?.checksum)
    if (!existsSync(template.baseDiskPath)) throw damaged(id, `its image ${manifest.image.file} is missing`)
    const read = { template, manifest }
    this.#known.set(id, read)
    return read
  }

  #findClonable(id: string): Promise<Template | undefined> {
    const known = this.#clonable.get(id)
    if (known) return known
    const checking = this.#checkClonable(id)
    this.#clonable.set(id, checking)
    checking.catch(() => this.#clonable.delete(id))
    return checking
  }

  async #checkClonable(id: string): Promise<Template | undefined> {
    try {
      const { template, manifest } = await this.#read(id)
      await checkFile(id, template.blankOverlayPath, manifest.files.blank?.checksum)
      const state = await readTemplateState(template.statePath).catch(() => undefined)
      if (!state || sha256(state) !== manifest.files.state.sha256)
        throw damaged(id, "its state is missing or was changed")
      if (template.kit !== undefined && !existsSync(join(this.#dataDir, template.kit)))
        throw damaged(id, `its disk ${template.kit} is missing`)
      await this.memory(template)
      return template
    } catch (error) {
      if (!(error instanceof AppError) || error.retryable) throw error
      this.#onDamage(error)
      return undefined
    }
  }

  async #load(template: Template): Promise<number> {
    const { id, memoryPath: path } = template
    const { manifest } = await this.#read(id)
    const { bytes, checksum: expected } = manifest.files.memory
    const size = existsSync(path) ? statSync(path).size : undefined
    if (size !== bytes) throw damaged(id, `its memory ${size === undefined ? "is missing" : "was cut"}`)
    const { fd, checksum } = await readMemory({ path, bytes })
    if (expected === undefined || checksum === expected) return fd
    closeSync(fd)
    throw damaged(id, "its memory was changed")
  }

  /** Returns undefined if it is missing or damaged. */
  async #readManifest(id: string): Promise<Manifest | undefined> {
    const file = Bun.file(join(this.#directory, id, "manifest.json"))
    if (!(await file.exists())) return undefined
    return Manifest.safeParse(openSealedJson(await file.text())).data
  }

  /** A path below the data directory is stored relative to it, so that the directory can be moved. */
  #inside(path: string): string {
    const below = relative(this.#dataDir, path)
    return below.startsWith("..") ? path : below
  }

  #entries(): string[] {
    return unlessMissing(() => readdirSync(this.#directory)) ?? []
  }
}

/** A template being made; no other code uses its directory. */
export type TemplateDraft = {
  directory: string
  diskPath: string
  blankOverlayPath: string
  statePath: string
  memoryFd: number
  finalDirectory: string
  manifest: Omit<Manifest, "files">
}

async function checkFile(id: string, path: string, checksum: string | undefined): Promise<void> {
  const name = basename(path)
  try {
    if (checksum !== undefined && (await fileChecksum(path)) !== checksum) {
      throw damaged(id, `its ${name} was changed`)
    }
    if (checksum === undefined) statSync(path)
  } catch (error) {
    if (isMissing(error)) throw damaged(id, `its ${name} is missing`)
    throw error
  }
}

function damaged(id: string, what: string): AppError {
  return new AppError("unavailable", `the template ${id} is damaged: ${what}`, {
    hint: "put the data directory's templates back from a backup",
    retryable: false,
  })
}

export function sha256(bytes: Uint8Array): string {
  return new Bun.CryptoHasher("sha256").update(bytes).digest("hex")
}
