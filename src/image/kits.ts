/**
 * The kit disks of one data directory: read-only, shared by all machines whose kernel they hold the modules of, and
 * accepted only if their manifest proves them. A kit never changes; machines and their saved states name theirs by
 * its path.
 *
 *     DATA/kits/HASH.raw  HASH.json
 */
import { readFileSync, statSync } from "node:fs"
import { rm } from "node:fs/promises"
import { dirname, join, relative } from "node:path"
import type { AppError } from "@bhatti/contract/errors"
import { unlessMissing } from "../lib/missing-files.ts"
import { parseJson } from "../lib/parse-json.ts"
import { commitLink } from "./commit.ts"
import { entriesOf } from "./entries.ts"
import type { BuiltKit } from "./kit.ts"
import { type Check, checkImage, damaged, damageOf, KitManifest, kitHash } from "./manifest.ts"
import { hasSameBytes, heal } from "./replace-damaged.ts"
import { markOf, verifyDisk } from "./verified-disk.ts"

export type InstalledKit = { hash: string; file: string; digest: string; kernelVersion: string }

/** A new build must be intact. */
export async function installKit(dataDir: string, built: BuiltKit): Promise<InstalledKit> {
  await linkKit(dataDir, built)
  return readKit(dataDir, built.hash)
}

async function linkKit(dataDir: string, { hash, file }: BuiltKit): Promise<void> {
  const manifest = join(dirname(file), "manifest.json")
  const { digest } = KitManifest.parse(await Bun.file(manifest).json())
  const target = join(dataDir, "kits", `${hash}.raw`)
  await commitLink(file, target)
  await heal(file, target, () => verifyDisk(target, digest))
  // The manifest comes last: a file without one does not count as installed.
  const manifestTarget = join(dataDir, "kits", `${hash}.json`)
  await commitLink(manifest, manifestTarget)
  await heal(manifest, manifestTarget, hasSameBytes)
}

function readManifest(dataDir: string, hash: string): KitManifest {
  const path = join(dataDir, "kits", `${hash}.json`)
  const text = unlessMissing(() => readFileSync(path, "utf8")) ?? ""
  const manifest = KitManifest.safeParse(parseJson(text)).data
  if (manifest?.hash !== hash || kitHash(manifest) !== hash) throw damaged(dataDir, path)
  return manifest
}

async function readKit(
  dataDir: string,
  hash: string,
  { check = "sizes", manifest = readManifest(dataDir, hash) }: { check?: Check; manifest?: KitManifest } = {},
): Promise<InstalledKit> {
  const file = join(dataDir, "kits", `${hash}.raw`)
  await checkImage(dataDir, file, manifest, check)
  return { hash, file, digest: manifest.digest, kernelVersion: manifest.kernelVersion }
}

/**
 * Returns the newest kit with the modules of that kernel, or undefined: a kernel that came without one has none. Throws
 * if the kit is damaged, since machines without it would lack what others have.
 */
export async function readKitFor(
  dataDir: string,
  kernel: { version: string },
): Promise<InstalledKit | undefined> {
  const manifest = listKits(dataDir).find(({ kernelVersion }) => kernelVersion === kernel.version)
  return manifest && readKit(dataDir, manifest.hash, { manifest })
}

/** The manifests of all installed kits, newest first. */
function listKits(dataDir: string): KitManifest[] {
  const found: { manifest: KitManifest; madeMs: number }[] = []
  for (const hash of kitHashes(dataDir)) {
    const manifest = readManifest(dataDir, hash)
    // It is a link to the cache's, whose time is that of its build.
    const { mtimeMs } = statSync(join(dataDir, "kits", `${hash}.json`))
    found.push({ manifest, madeMs: mtimeMs })
  }
  return found.sort((one, other) => other.madeMs - one.madeMs).map(({ manifest }) => manifest)
}

/** Returns paths below the data directory, or undefined while it cannot be known. */
export type NeededKits = () => Promise<ReadonlySet<string> | undefined>

/**
 * Removes kits that are neither needed nor the next for one of the kernels, nor young. Returns the removed paths. A kit
 * becomes needed only while it is the next or young, so the answer holds.
 */
export async function removeUnusedKits(
  dataDir: string,
  options: {
    needed: NeededKits
    kernels: { version: string }[]
    isOld: (path: string) => Promise<boolean>
  },
): Promise<string[]> {
  const next = await Promise.all(options.kernels.map((kernel) => readKitFor(dataDir, kernel)))
  const kept = new Set(next.map((kit) => kit?.hash))
  const needed = await options.needed()
  if (needed === undefined) return []
  const removed: string[] = []
  for (const { hash } of listKits(dataDir)) {
    const file = join(dataDir, "kits", `${hash}.raw`)
    const manifest = join(dataDir, "kits", `${hash}.json`)
    if (kept.has(hash) || needed.has(relative(dataDir, file)) || !(await options.isOld(manifest))) continue
    await rm(manifest)
    await rm(file, { force: true })
    await rm(markOf(file), { force: true })
    removed.push(file)
  }
  return removed
}

/** Repairs damaged kits as far as the cache still has them. Returns an error for each that stays damaged. */
export async function healKits(dataDir: string, cacheDir: string): Promise<AppError[]> {
  const left: (AppError | undefined)[] = []
  for (const hash of kitHashes(dataDir)) {
    const look = () => damageOf(readKit(dataDir, hash, { check: "digests" }))
    if ((await look()) === undefined) continue
    const file = await findCachedKit(cacheDir, hash)
    if (file !== undefined) await linkKit(dataDir, { hash, file })
    left.push(await look())
  }
  return left.filter((error) => error !== undefined)
}

async function findCachedKit(cacheDir: string, hash: string): Promise<string | undefined> {
  for (const entry of entriesOf(join(cacheDir, "kits"), /^([0-9a-f]{16})$/)) {
    const directory = join(cacheDir, "kits", entry)
    const text = await Bun.file(join(directory, "manifest.json")).text()
    const manifest = KitManifest.safeParse(parseJson(text)).data
    const file = join(directory, "disk.raw")
    if (manifest?.hash === hash && (await verifyDisk(file, manifest.digest))) return file
  }
  return undefined
}

/** For the doctor, which changes nothing. */
export async function kitDamage(dataDir: string): Promise<AppError[]> {
  const errors: (AppError | undefined)[] = []
  for (const hash of kitHashes(dataDir)) {
    const reading = readKit(dataDir, hash)
    const damage = await damageOf(reading)
    if (damage) {
      errors.push(damage)
      continue
    }
    const { file, digest } = await reading
    if (!(await verifyDisk(file, digest, { isKept: false }))) errors.push(damaged(dataDir, file))
  }
  return errors.filter((error) => error !== undefined)
}

function kitHashes(dataDir: string): string[] {
  return entriesOf(join(dataDir, "kits"), /^([0-9a-f]{16})\.json$/)
}
