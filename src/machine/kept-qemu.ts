/**
 * Builds of QEMU, each with everything that its machines open, kept as copies below `qemu`: the present one, and those
 * that a saved memory was written by, which only they can load. A build is named by the digest of its content, and its
 * directory appears by a rename, so a crash leaves no partial build.
 */

import { mkdir, readdir, rename, rm, stat } from "node:fs/promises"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { z } from "zod"
import { renameDurably, writeSynced } from "../lib/durable.ts"
import { whenMissing } from "../lib/missing-files.ts"
import { openSealedJson, sealJson } from "../lib/sealed-json.ts"
import { isUnchanged, type QemuBuild } from "./fingerprint.ts"
import { checkAllowed, isForbidden } from "./forbidden-qemu.ts"
import { filesOf, fillRoot, libraryIndex } from "./jail.ts"

const unfinished = "part-"
const factsName = "build.json"
const mebibyte = 1024 * 1024

const Facts = z.object({
  binary: z.string(),
  version: z.string(),
  name: z.string(),
  identity: z.string(),
  /** The host's files that it was copied from, as far as a look at them without reading shows. */
  source: z.string(),
  files: z.array(z.string()),
  bytes: z.int(),
})

export type KeptQemu = QemuBuild & {
  /** Digest of its files. */
  id: string
  /** The root directory that its machines see. */
  root: string
  mib: number
}

type Kept = KeptQemu & z.infer<typeof Facts>

export type KeptQemusOptions = {
  dataDir: string
  /** The QEMU that is installed. */
  qemu: QemuBuild
  /** The operator's `forbidden_qemu`. */
  forbidden: readonly string[]
  /** Set if machines run the host's program and not the copy. */
  isOutside: boolean
}

export class KeptQemus {
  /** The build of machines that boot or start from a template. */
  readonly present: KeptQemu
  readonly #options: KeptQemusOptions
  /** Each build's damage, if it has any. Read once: a build has 60 MB and more. */
  readonly #checked = new Map<string, Promise<string | undefined>>()

  private constructor(options: KeptQemusOptions, present: KeptQemu) {
    this.#options = options
    this.present = present
  }

  /** Copies the host's QEMU if it is not kept yet, and removes what a crash has left. */
  static async open(options: KeptQemusOptions): Promise<KeptQemus> {
    checkAllowed(options.qemu, options.forbidden)
    const directory = folderOf(options.dataDir)
    await mkdir(directory, { recursive: true, mode: 0o700 })
    for (const name of await readdir(directory))
      if (name.startsWith(unfinished)) await rm(join(directory, name), { recursive: true, force: true })
    const present = await keep(options)
    checkAllowed(present, options.forbidden)
    return new KeptQemus(options, present)
  }

  async find(id: string | undefined): Promise<Pick<KeptQemu, "id" | "name"> | undefined> {
    const { present } = this
    const found = id === present.id ? present : (await this.list()).find((one) => one.id === id)
    return found && { id: found.id, name: found.name }
  }

  /** Throws if a start would run another program than the present build. */
  checkPresent(): void {
    if (!this.#options.isOutside || isUnchanged(this.#options.qemu)) return
    throw new AppError("unavailable", "the host's QEMU was replaced while the daemon ran", {
      hint: "sudo systemctl restart bhatti",
      retryable: false,
    })
  }

  /**
   * Returns the build that may load a saved state. `fits` says whether a build can; `savedBy` names the one that wrote
   * the state, if it is known.
   */
  async choose(
    fits: (qemu: KeptQemu) => boolean,
    savedBy?: Pick<KeptQemu, "id" | "name">,
  ): Promise<{ qemu: KeptQemu } | { reason: string }> {
    if (fits(this.present)) return { qemu: this.present }
    const all = await this.list()
    let reason: string | undefined
    for (const qemu of all.filter(fits)) {
      const obstacle = await this.#obstacleTo(qemu)
      if (obstacle === undefined) return { qemu }
      reason ??= `its memory needs QEMU ${qemu.name}, ${obstacle}`
    }
    if (reason !== undefined) return { reason }
    return savedBy === undefined || all.some(({ id }) => id === savedBy.id)
      ? { reason: "its memory snapshot was made by another QEMU or bhatti, or on another CPU" }
      : { reason: `its memory needs QEMU ${savedBy.name}, which is not kept on this host` }
  }

  async #obstacleTo(qemu: KeptQemu): Promise<string | undefined> {
    if (isForbidden(qemu, this.#options.forbidden)) return "which the operator forbids"
    if (this.#options.isOutside) return "and with confinement: reduced only the installed one runs"
    const damage = await this.#damageOf(qemu)
    return damage && `and its kept copy is damaged: ${damage}`
  }

  /** The builds that are there now, the present one first and then the one kept last. */
  async list(): Promise<KeptQemu[]> {
    const others = (await listKept(this.#options.dataDir)).filter(({ id }) => id !== this.present.id)
    return [this.present, ...others]
  }

  async #damageOf(qemu: KeptQemu): Promise<string | undefined> {
    const known = this.#checked.get(qemu.id)
    if (known) return known
    const checking = this.#check(qemu)
    this.#checked.set(qemu.id, checking)
    checking.catch(() => this.#checked.delete(qemu.id))
    return checking
  }

  async #check({ id, root }: KeptQemu): Promise<string | undefined> {
    const kept = (await listKept(this.#options.dataDir)).find((one) => one.id === id)
    if (!kept) return "it is missing"
    const found = await digestOf(root, kept.files).catch(whenMissing)
    if (!found) return "a file of it is missing"
    return found.id === id ? undefined : "a file of it was changed"
  }

  /** A crash in the middle leaves a directory that the next start removes. */
  async remove({ id }: KeptQemu): Promise<void> {
    if (id === this.present.id) return
    const folder = folderOf(this.#options.dataDir)
    const hidden = join(folder, `${unfinished}${id}`)
    await rename(join(folder, id), hidden)
    this.#checked.delete(id)
    await rm(hidden, { recursive: true, force: true })
  }
}

/** The kept builds, the last one first. Leaves out directories without valid facts. */
export async function listKept(dataDir: string): Promise<Kept[]> {
  const found = new Map<Kept, number>()
  for (const id of (await readdir(folderOf(dataDir)).catch(whenMissing)) ?? []) {
    const directory = join(folderOf(dataDir), id)
    if (id.startsWith(unfinished)) continue
    const file = Bun.file(join(directory, factsName))
    if (!(await file.exists())) continue
    const facts = Facts.safeParse(openSealedJson(await file.text())).data
    if (!facts) continue
    const mib = Math.ceil(facts.bytes / mebibyte)
    found.set({ ...facts, id, root: join(directory, "root"), mib }, file.lastModified)
  }
  return [...found].sort(([, one], [, other]) => other - one).map(([kept]) => kept)
}

/** Returns the kept copy of a QEMU that is installed, if there is one. */
export async function keptCopyOf(dataDir: string, qemu: QemuBuild): Promise<Kept | undefined> {
  const source = await sourceOf(await filesOf(qemu.binary))
  return (await listKept(dataDir)).find((one) => one.source === source)
}

function folderOf(dataDir: string): string {
  return join(dataDir, "qemu")
}

async function keep({ dataDir, qemu }: { dataDir: string; qemu: QemuBuild }): Promise<KeptQemu> {
  const files = await filesOf(qemu.binary)
  const source = await sourceOf(files)
  const known = (await listKept(dataDir)).find((one) => one.source === source)
  if (known && (await isWhole(known))) return known

  const part = join(folderOf(dataDir), `${unfinished}${process.pid}`)
  await mkdir(part, { mode: 0o700 })
  try {
    await fillRoot(join(part, "root"), files)
    // A package manager may be at work; a mixture of two builds must get neither's name.
    if ((await sourceOf(files)) !== source || !isUnchanged(qemu)) {
      throw new AppError("unavailable", "QEMU was replaced while it was copied", {
        hint: "start the daemon again when the update of the host's packages has finished",
      })
    }
    const { id, bytes } = await digestOf(join(part, "root"), files)
    const same = (await listKept(dataDir)).find((one) => one.id === id)
    const directory = join(folderOf(dataDir), id)
    // The same content keeps its identity, so that all saved memories and templates fit.
    const { binary, version, name, identity } = same ?? qemu
    const facts = { binary, version, name, identity, source, files, bytes }
    await writeSynced(join(part, factsName), sealJson(facts))
    if (same && (await isWhole(same))) await renameDurably(join(part, factsName), join(directory, factsName))
    else {
      await rm(directory, { recursive: true, force: true })
      Bun.spawnSync(["sync", "--file-system", part])
      await renameDurably(part, directory)
    }
    return { ...facts, id, root: join(directory, "root"), mib: Math.ceil(bytes / mebibyte) }
  } finally {
    await rm(part, { recursive: true, force: true })
  }
}

/** Returns whether all its files are there as they were copied. Reading them takes about a tenth of a second. */
async function isWhole({ id, root, files }: Kept): Promise<boolean> {
  return (await digestOf(root, files).catch(whenMissing))?.id === id
}

async function sourceOf(files: string[]): Promise<string> {
  const hash = new Bun.CryptoHasher("sha256")
  for (const path of files) {
    if (path === libraryIndex) continue
    const { size, mtimeMs, ino } = await stat(path)
    hash.update(`${path} ${size} ${mtimeMs} ${ino}\n`)
  }
  return hash.digest("hex")
}

async function digestOf(root: string, files: string[]): Promise<{ id: string; bytes: number }> {
  const hash = new Bun.CryptoHasher("sha256")
  let bytes = 0
  for (const path of files) {
    const file = Bun.file(join(root, path))
    const { size } = await stat(join(root, path))
    bytes += size
    if (path === libraryIndex) continue
    hash.update(`${path} ${size}\n`)
    for await (const piece of file.stream()) hash.update(piece)
  }
  return { id: hash.digest("hex").slice(0, 16), bytes }
}
