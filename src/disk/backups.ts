/**
 * A backup of the whole installation: a directory laid out like a data directory, plus `backup.json`, which lists
 * every file with its size and checksum and is written last. A directory without `backup.json` is not a backup. A
 * backup holds everything a data directory holds, keys included.
 */

import { closeSync, constants, openSync } from "node:fs"
import { lstat, mkdir, readdir, rename, rm, stat } from "node:fs/promises"
import { dirname, join, resolve } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { z } from "zod"
import { writeSynced } from "../lib/durable.ts"
import { errorCodeOf } from "../lib/error-code.ts"
import { exists, whenMissing, whenNowhere } from "../lib/missing-files.ts"
import { parseJson } from "../lib/parse-json.ts"
import { tryLock } from "../lib/posix.ts"
import { runProgram } from "../lib/program.ts"
import { fileChecksum } from "../lib/sparse-file.ts"
import { diskFull } from "./disks.ts"
import { contentOf, giveBack, takeEmpty } from "./empty-directory.ts"
import { folderOf, type KeptKind } from "./kept-rows.ts"

const manifestFile = "backup.json"
const Manifest = z.object({
  at: z.string(),
  version: z.string(),
  files: z.record(z.string(), z.object({ bytes: z.int(), checksum: z.string() })),
})
type Manifest = z.infer<typeof Manifest>

/**
 * Files outside the database, and directories shared by all sandboxes, with the depth at which their parts appear
 * and disappear whole.
 */
const commonFiles = ["config.yaml", "age.key"]
const commonDirectories = { kernels: 1, kits: 1, images: 2, templates: 1, qemu: 1 }
/** Names of parts that are being made or were left unfinished. */
const inTheMaking = /^(tmp-|part-|\.making-)/
/** Begins the name of the directory in which a restore gathers its files. */
const restoring = ".restoring-"
const mebibyte = 1024 * 1024
/** Large disks on slow storage take hours. */
const copyDeadlineMs = 24 * 60 * 60 * 1000

export class Backups {
  readonly #dataDir: string
  readonly #draftOf: (id: string) => string

  /** `draftOf` names the directory of a sandbox's draft. */
  constructor(options: { dataDir: string; draftOf: (id: string) => string }) {
    this.#dataDir = options.dataDir
    this.#draftOf = options.draftOf
  }

  /** Refuses a directory that is not empty. */
  async begin(directory: string): Promise<BackupDraft> {
    if (`${resolve(directory)}/`.startsWith(`${resolve(this.#dataDir)}/`)) {
      throw new AppError("invalid", "a backup in the data directory would be lost with it", {
        hint: "name a directory elsewhere, best on another disk",
      })
    }
    const target = await takeEmpty(directory)
    const [here, there] = await Promise.all([stat(this.#dataDir), stat(target.path)])
    const isBeside = here.dev === there.dev
    return new BackupDraft(this.#dataDir, { ...target, isBeside, draftOf: this.#draftOf })
  }
}

type Target = { path: string; isNew: boolean; isBeside: boolean; draftOf: (id: string) => string }

/** `draft` names the draft of the sandbox's copy. */
type Part =
  | { kind: "sandbox"; id: string; draft: string }
  | { kind: "snapshot"; id: string }
  | { kind: "common"; without: readonly string[] }

export class BackupDraft {
  readonly #dataDir: string
  readonly #target: Target
  readonly #directory: string
  /** True if the backup takes its space from the data directory's file system. */
  readonly isBeside: boolean
  #isFull = false
  #isFinished = false

  constructor(dataDir: string, target: Target) {
    this.#dataDir = dataDir
    this.#target = target
    this.#directory = target.path
    this.isBeside = target.isBeside
  }

  /** True once a write has run out of space. The caller must not try any more then. */
  get isFull(): boolean {
    return this.#isFull
  }

  async add(part: Part): Promise<void> {
    if (part.kind === "common") return this.#addCommon(part.without)
    const from =
      part.kind === "sandbox"
        ? this.#target.draftOf(part.draft)
        : join(this.#dataDir, folderOf.snapshot, part.id)
    await this.#add(join(this.#directory, folderOf[part.kind], part.id), `${from}/.`)
  }

  async addDatabase<Copied extends { mark: string; gone: { kind: KeptKind; id: string }[] }>(
    copyTo: (path: string) => Promise<Copied>,
  ): Promise<Copied> {
    return this.#writing(async () => {
      const copied = await copyTo(join(this.#directory, "bhatti.db"))
      for (const { kind, id } of copied.gone)
        await rm(join(this.#directory, folderOf[kind], id), { recursive: true, force: true })
      await writeSynced(join(this.#directory, "installation.json"), copied.mark)
      return copied
    })
  }

  async commonMib(without: readonly string[]): Promise<number> {
    let blocks = 0
    for (const part of await this.#commonParts(without)) {
      const path = join(this.#dataDir, part)
      const below = await readdir(path, { recursive: true }).catch(() => [])
      for (const name of ["", ...below])
        blocks += (await stat(join(path, name)).catch(() => ({ blocks: 0 }))).blocks
    }
    return Math.ceil((blocks * 512) / mebibyte)
  }

  /** Adds keys, settings, kernels, kits, images, templates, and each QEMU that saved memories need. */
  async #addCommon(without: readonly string[]): Promise<void> {
    for (const part of await this.#commonParts(without)) {
      try {
        await this.#writing(() => copy(["--parents", part], this.#directory, this.#dataDir))
      } catch (error) {
        // A part removed meanwhile has no sandbox that depends on it.
        if (await exists(join(this.#dataDir, part))) throw error
        await rm(join(this.#directory, part), { recursive: true, force: true })
      }
    }
  }

  async finish(about: { version: string }): Promise<{ bytes: number }> {
    return await this.#writing(async () => {
      await run(["sync", "--file-system", this.#directory])
      const manifest: Manifest = { at: new Date().toISOString(), version: about.version, files: {} }
      let bytes = 0
      for (const name of await filesBelow(this.#directory)) {
        const path = join(this.#directory, name)
        const { size, blocks } = await stat(path)
        manifest.files[name] = { bytes: size, checksum: await fileChecksum(path) }
        bytes += blocks * 512
      }
      await writeSynced(join(this.#directory, manifestFile), JSON.stringify(manifest))
      this.#isFinished = true
      return { bytes }
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#isFinished) await giveBack(this.#target)
  }

  /** Runs work that writes there; an out-of-space error names the backup's disk. */
  async #writing<Result>(work: () => Promise<Result>): Promise<Result> {
    try {
      return await work()
    } catch (cause) {
      if (!isNoSpace(cause)) throw cause
      this.#isFull = true
      throw new AppError("unavailable", `the backup does not fit: the disk of ${this.#directory} is full`, {
        cause,
        hint: "nothing was left there; free some space, or name a directory on another disk",
        retryable: false,
      })
    }
  }

  /** Adds all of the directory's files or none. */
  async #add(to: string, from: string): Promise<void> {
    try {
      await this.#writing(async () => {
        await mkdir(dirname(to), { recursive: true, mode: 0o700 })
        await copy([from], to)
      })
    } catch (error) {
      await rm(to, { recursive: true, force: true })
      throw error
    }
  }

  /** Paths relative to the data directory; only complete parts. */
  async #commonParts(withoutTemplates: readonly string[]): Promise<string[]> {
    const parts: string[] = []
    for (const name of commonFiles) if (await exists(join(this.#dataDir, name))) parts.push(name)
    for (const [name, depth] of Object.entries(commonDirectories))
      parts.push(...(await partsBelow(this.#dataDir, name, depth)))
    const without = new Set(withoutTemplates.map((id) => join("templates", id)))
    return parts.filter((part) => !without.has(part))
  }
}

async function partsBelow(root: string, path: string, depth: number): Promise<string[]> {
  const entries = (await readdir(join(root, path), { withFileTypes: true }).catch(whenMissing)) ?? []
  const parts: string[] = []
  for (const entry of entries) {
    if (inTheMaking.test(entry.name)) continue
    const part = join(path, entry.name)
    if (depth > 1 && entry.isDirectory()) parts.push(...(await partsBelow(root, part, depth - 1)))
    else parts.push(part)
  }
  return parts
}

/** Also recognises wrapped errors. */
function isNoSpace(error: unknown): boolean {
  if (/^(ENOSPC|EDQUOT)$/.test(errorCodeOf(error) ?? "")) return true
  return error instanceof Error && error.cause !== undefined && isNoSpace(error.cause)
}

/**
 * Restores a data directory from a backup, whole or not at all. Checks each file against the manifest. Works only
 * within the directory, which may be a mount point.
 */
export async function restoreBackup(options: {
  from: string
  dataDir: string
  report: (line: string) => void
}): Promise<{ at: string; version: string }> {
  const { from, dataDir } = options
  const manifest = await readManifest(from)
  const isNew = (await mkdir(dataDir, { recursive: true, mode: 0o700 })) !== undefined
  using _alone = holdDirectory(dataDir)
  if (await removeRemains(dataDir, await contentOf(from)))
    options.report("removed what a restore that was killed had left there")
  const target = { ...(await takeEmpty(dataDir)), isNew }
  await using undo = new AsyncDisposableStack()
  undo.defer(() => giveBack(target))
  // A copy that a killed restore has begun may go on for a moment, under another name.
  const inside = join(target.path, `${restoring}${crypto.randomUUID().slice(0, 8)}`)
  await mkdir(inside, { mode: 0o700 })
  await copy(
    (await contentOf(from)).map((name) => join(from, name)),
    inside,
  )
  await rm(join(inside, manifestFile))
  await compare(inside, manifest)
  await run(["sync", "--file-system", inside])
  for (const name of inSafeOrder(await readdir(inside)))
    await rename(join(inside, name), join(target.path, name))
  await rm(inside, { recursive: true })
  await run(["sync", "--file-system", target.path])
  undo.move()
  return { at: manifest.at, version: manifest.version }
}

/** Lets one restore at a time fill the directory; the kernel lets go when this process ends. */
function holdDirectory(directory: string): Disposable {
  const fd = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY)
  if (tryLock(fd)) return { [Symbol.dispose]: () => closeSync(fd) }
  closeSync(fd)
  throw new AppError("conflict", `another restore fills ${directory}`, { hint: "wait for it to end" })
}

/**
 * Removes what a killed restore has left, if the directory has nothing else. A directory with a database has been
 * restored completely.
 */
async function removeRemains(directory: string, namesInBackup: string[]): Promise<boolean> {
  const names = await contentOf(directory)
  const [parts = [], placed = []] = [true, false].map((isPart) =>
    names.filter((name) => name.startsWith(restoring) === isPart),
  )
  const isOwn = (name: string) => name !== "bhatti.db" && namesInBackup.includes(name)
  if (parts.length === 0 || !placed.every(isOwn)) return false
  // The parts prove what the others are, so they go last.
  for (const name of [...placed, ...parts]) await rm(join(directory, name), { recursive: true, force: true })
  return true
}

/** If this process is killed, the daemon refuses a mark without a database. */
function inSafeOrder(names: string[]): string[] {
  const place = (name: string) => (name === "installation.json" ? 0 : name === "bhatti.db" ? 2 : 1)
  return names.toSorted((a, b) => place(a) - place(b))
}

async function compare(directory: string, manifest: Manifest): Promise<void> {
  const names = new Set(await filesBelow(directory))
  for (const [name, { bytes, checksum }] of Object.entries(manifest.files)) {
    const path = join(directory, name)
    if (!names.delete(name)) throw damaged(`${name} is missing`)
    if ((await stat(path)).size !== bytes || (await fileChecksum(path)) !== checksum)
      throw damaged(`${name} was changed`)
  }
  const [extra] = names
  if (extra !== undefined) throw damaged(`${extra} does not belong to it`)
}

async function readManifest(directory: string): Promise<Manifest> {
  const text = await Bun.file(join(directory, manifestFile)).text().catch(whenNowhere)
  if (text === undefined) {
    throw new AppError("not_found", `there is no complete backup in ${directory}`, {
      hint: "name the directory that was given to: bhatti admin backup; one without backup.json was not finished",
    })
  }
  const manifest = Manifest.safeParse(parseJson(text))
  if (!manifest.success) throw damaged(`${manifestFile} is damaged`)
  return manifest.data
}

function damaged(what: string): AppError {
  return new AppError("unavailable", `the backup is damaged: ${what}`, {
    hint: "nothing was restored; take another backup",
    retryable: false,
  })
}

/** Preserves holes and times, and shares blocks if the file system can. */
async function copy(from: readonly string[], to: string, cwd = "/"): Promise<void> {
  await run(["cp", "--archive", "--sparse=always", "--reflink=auto", ...from, to], cwd)
}

async function run(command: readonly string[], cwd = "/"): Promise<void> {
  await runProgram(command, {
    cwd,
    deadlineMs: copyDeadlineMs,
    searchPath: "/usr/sbin:/usr/bin:/sbin:/bin",
    failure: (why) => {
      const words = why.kind === "missing" ? `${command[0]} is not installed` : why.stderr.trim()
      // cp distinguishes its errors only by their text.
      if (/No space left on device|Disk quota exceeded/.test(words))
        return diskFull(Object.assign(new Error(words), { code: "ENOSPC" }))
      return new AppError("unavailable", `copying failed: ${words.split("\n").at(-1)}`, {
        hint: "look at the disk that it names, then try again",
      })
    },
  })
}

async function filesBelow(directory: string): Promise<string[]> {
  const names: string[] = []
  for (const top of await contentOf(directory)) {
    const path = join(directory, top)
    const found = await lstat(path)
    if (found.isFile()) names.push(top)
    else if (found.isDirectory())
      for (const entry of await readdir(path, { recursive: true, withFileTypes: true }))
        if (entry.isFile())
          names.push(join(entry.parentPath, entry.name).slice(resolve(directory).length + 1))
  }
  return names.sort()
}
