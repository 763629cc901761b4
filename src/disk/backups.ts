/**
 * A backup of the whole installation: a directory laid out as a data directory, with `backup.json`, which names every file with its size
 * and checksum and is written last. Without it there is no backup. It holds all that a data directory holds, keys included.
 */

import { chmod, mkdir, open, readdir, rename, rm, stat } from "node:fs/promises"
import { dirname, join, resolve } from "node:path"
import { z } from "zod"
import { AppError } from "../contract/errors.ts"
import { errorCodeOf } from "../lib/error-code.ts"
import { parseJson } from "../lib/parse-json.ts"
import { fileChecksum } from "../lib/sparse-file.ts"
import { diskFull } from "./disks.ts"

const manifestFile = "backup.json"
const Manifest = z.object({
  at: z.string(),
  version: z.string(),
  files: z.record(z.string(), z.object({ bytes: z.int(), checksum: z.string() })),
})
type Manifest = z.infer<typeof Manifest>

/** Directories that all sandboxes lie on, and files outside the database. */
const commonParts = ["config.yaml", "age.key", "kernels", "images", "templates"]

export class Backups {
  readonly #dataDir: string

  constructor(options: { dataDir: string }) {
    this.#dataDir = options.dataDir
  }

  /** Refuses a directory with something in it. */
  async begin(directory: string): Promise<BackupDraft> {
    if (`${resolve(directory)}/`.startsWith(`${resolve(this.#dataDir)}/`)) {
      throw new AppError("invalid", "a backup in the data directory would be lost with it", {
        hint: "name a directory elsewhere, best on another disk",
      })
    }
    await makeEmpty(directory)
    return new BackupDraft(this.#dataDir, resolve(directory))
  }
}

export class BackupDraft {
  readonly #dataDir: string
  readonly #directory: string

  constructor(dataDir: string, directory: string) {
    this.#dataDir = dataDir
    this.#directory = directory
  }

  get databasePath(): string {
    return join(this.#directory, "bhatti.db")
  }

  /** The copy of a sandbox that was made for it. */
  async addSandbox(id: string, draftDirectory: string): Promise<void> {
    await mkdir(join(this.#directory, "sandboxes"), { recursive: true, mode: 0o700 })
    await copy([`${draftDirectory}/.`], join(this.#directory, "sandboxes", id))
  }

  async addSnapshot(id: string): Promise<void> {
    await mkdir(join(this.#directory, "snapshots"), { recursive: true, mode: 0o700 })
    await copy([join(this.#dataDir, "snapshots", id)], join(this.#directory, "snapshots"))
  }

  /** Keys, settings, kernels, images and templates. */
  async addCommon(): Promise<void> {
    const there = new Set(await readdir(this.#dataDir))
    await copy(
      commonParts.filter((name) => there.has(name)).map((name) => join(this.#dataDir, name)),
      this.#directory,
    )
    // Unfinished files do not belong in it.
    for (const name of await readdir(join(this.#directory, "templates")).catch(() => []))
      if (name.startsWith("tmp-")) await rm(join(this.#directory, "templates", name), { recursive: true })
  }

  async remove(kind: "sandbox" | "snapshot", id: string): Promise<void> {
    const folder = kind === "sandbox" ? "sandboxes" : "snapshots"
    await rm(join(this.#directory, folder, id), { recursive: true, force: true })
  }

  async finish(about: { version: string; mark: string }): Promise<{ bytes: number }> {
    const markPath = join(this.#directory, "installation.json")
    await writeSynced(markPath, about.mark)
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
    return { bytes }
  }

  async abandon(): Promise<void> {
    await rm(this.#directory, { recursive: true, force: true })
  }
}

/** A data directory from a backup, whole or not at all. Each file is compared with what was written down of it. */
export async function restoreBackup(options: {
  from: string
  dataDir: string
}): Promise<{ at: string; version: string }> {
  const { from, dataDir } = options
  const manifest = await readManifest(from)
  await makeEmpty(dataDir)
  const beside = join(dirname(resolve(dataDir)), `.restoring-${process.pid}`)
  await using undo = new AsyncDisposableStack()
  undo.defer(() => rm(beside, { recursive: true, force: true }))
  await copy([`${from}/.`], beside)
  await rm(join(beside, manifestFile))
  const names = new Set(await filesBelow(beside))
  for (const [name, { bytes, checksum }] of Object.entries(manifest.files)) {
    const path = join(beside, name)
    if (!names.delete(name)) throw damaged(`${name} is missing`)
    if ((await stat(path)).size !== bytes || (await fileChecksum(path)) !== checksum)
      throw damaged(`${name} was changed`)
  }
  const [extra] = names
  if (extra !== undefined) throw damaged(`${extra} does not belong to it`)
  await chmod(beside, 0o700)
  await run(["sync", "--file-system", beside])
  await rm(dataDir, { recursive: true, force: true })
  await rename(beside, dataDir)
  undo.move()
  return { at: manifest.at, version: manifest.version }
}

async function readManifest(directory: string): Promise<Manifest> {
  const text = await Bun.file(join(directory, manifestFile))
    .text()
    .catch((error: unknown) => {
      if (errorCodeOf(error) === "ENOENT" || errorCodeOf(error) === "ENOTDIR") return undefined
      throw error
    })
  if (text === undefined) {
    throw new AppError("not_found", `there is no whole backup in ${directory}`, {
      hint: "name the directory that was given to: bhatti admin backup; one without backup.json was not finished",
    })
  }
  const manifest = Manifest.safeParse(parseJson(text))
  if (!manifest.success) throw damaged(`${manifestFile} is not whole`)
  return manifest.data
}

function damaged(what: string): AppError {
  return new AppError("unavailable", `the backup is damaged: ${what}`, {
    hint: "nothing was restored; take another backup",
    retryable: false,
  })
}

/** Also where there is an empty one. */
async function makeEmpty(directory: string): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o700 })
  if ((await readdir(directory)).length > 0) {
    throw new AppError("conflict", `${directory} is not empty`, {
      hint: "name another directory, or move that one away first",
    })
  }
  await chmod(directory, 0o700)
}

/** Holes stay holes, times stay, and blocks are shared where the file system can. */
async function copy(from: readonly string[], to: string): Promise<void> {
  await run(["cp", "--archive", "--sparse=always", "--reflink=auto", "--", ...from, to])
}

async function run(command: readonly [string, ...string[]]): Promise<void> {
  const child = Bun.spawn([...command], {
    stdio: ["ignore", "ignore", "pipe"],
    env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C" },
  })
  const words = await new Response(child.stderr).text()
  if ((await child.exited) === 0) return
  if (words.includes("No space left on device")) throw diskFull(new Error(words))
  throw new AppError("unavailable", `copying failed: ${words.trim().split("\n").at(-1) ?? command[0]}`, {
    hint: "look at the disk that it names, then try again",
  })
}

async function filesBelow(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true })
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(resolve(directory).length + 1))
    .sort()
}

async function writeSynced(path: string, text: string): Promise<void> {
  const handle = await open(path, "wx", 0o600)
  try {
    await handle.writeFile(text)
    await handle.sync()
  } finally {
    await handle.close()
  }
}
