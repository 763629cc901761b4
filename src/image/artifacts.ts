/**
 * The kernels and images of one data directory: found by name or hash, and accepted only if their manifest proves
 * them. Installed files never change; `current.json` names the one to use next.
 *
 *     DATA/kernels/HASH/{vmlinux,initramfs,manifest.json}     DATA/kernels/current.json
 *     DATA/images/NAME/HASH.raw  HASH.json                    DATA/images/NAME/current.json
 */
import { readFileSync } from "node:fs"
import { readdir, stat } from "node:fs/promises"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { limits } from "@bhatti/contract/limits"
import type { z } from "zod"
import { isDiskName } from "../lib/disk-names.ts"
import { exists, unlessMissing, whenMissing } from "../lib/missing-files.ts"
import { suggest } from "../lib/suggest.ts"
import {
  type Check,
  Current,
  checkImage,
  checkKernel,
  damaged,
  ImageManifest,
  KernelManifest,
} from "./manifest.ts"
import { recipeNames } from "./rootfs.ts"

const mebibyte = 1024 * 1024

export type InstalledKernel = {
  hash: string
  /** As `uname -r` reports it in the guest. */
  version: string
  vmlinux: string
  initramfs: string
}

export type InstalledImage = {
  name: string
  hash: string
  /** The raw disk; read-only for every user. */
  file: string
  /** The digest that `diskDigest` computes of the whole file. */
  digest: string
  sizeMib: number
  kernelVersion: string
  programs?: ImageManifest["programs"]
  services?: ImageManifest["services"]
  config?: ImageManifest["config"]
  initSystem?: boolean | undefined
}

/** `usedMib` is the space it takes on the host. */
export type ListedImage = InstalledImage & { usedMib: number; installedAt: string }

/** Selects a build (default: the current one) and how closely to check it (default: sizes only). */
export type ReadOptions = { hash?: string; check?: Check }

export async function readKernel(dataDir: string, options: ReadOptions = {}): Promise<InstalledKernel> {
  const kernels = join(dataDir, "kernels")
  const missing = () =>
    new AppError("not_found", `no guest kernel in ${dataDir}`, {
      subject: { kind: "installation", data_dir: dataDir },
    })
  const current = join(kernels, "current.json")
  const hash = options.hash ?? (await readManifest(dataDir, current, Current, missing)).hash
  const directory = join(kernels, hash)
  const manifestPath = join(directory, "manifest.json")
  const lost = () => damaged(dataDir, manifestPath)
  const manifest = await readManifest(dataDir, manifestPath, KernelManifest, lost)
  if (manifest.hash !== hash) throw lost()
  await checkKernel(dataDir, manifest, options.check ?? "sizes")
  return {
    hash: manifest.hash,
    version: manifest.version,
    vmlinux: join(directory, "vmlinux"),
    initramfs: join(directory, "initramfs"),
  }
}

/**
 * Returns the newest build of the kernel whose modules the image holds: with any other, the guest uses the kit's
 * modules. Falls back to the current kernel.
 */
export async function readKernelFor(
  dataDir: string,
  image: { name: string; hash: string },
): Promise<InstalledKernel> {
  const current = await readKernel(dataDir)
  const { kernelVersion } = await readImage(dataDir, image.name, { hash: image.hash })
  if (kernelVersion === current.version) return current
  return (await listKernels(dataDir)).find(({ version }) => version === kernelVersion) ?? current
}

/** All installed builds that are complete, newest first. */
export async function listKernels(dataDir: string): Promise<InstalledKernel[]> {
  const kernels = join(dataDir, "kernels")
  const found: { kernel: InstalledKernel; madeMs: number }[] = []
  for (const hash of (await readdir(kernels)).filter((name) => /^[0-9a-f]+$/.test(name))) {
    const kernel = await unlessDamaged(readKernel(dataDir, { hash }))
    if (kernel) found.push({ kernel, madeMs: (await stat(join(kernels, hash))).mtimeMs })
  }
  return found.sort((one, other) => other.madeMs - one.madeMs).map(({ kernel }) => kernel)
}

export async function readImage(
  dataDir: string,
  name: string,
  options: ReadOptions = {},
): Promise<InstalledImage> {
  const images = join(dataDir, "images", name)
  const missing = async () => {
    const others = (await imageNames(dataDir)).filter((one) => one !== name && !isDiskName(one))
    const canBeBuilt = recipeNames.includes(name)
    const image = canBeBuilt && name !== limits.imageDefault ? { image: name } : {}
    const similar = canBeBuilt ? undefined : suggest(name, others)
    const list = `images of this host: ${others.join(", ")}`
    return new AppError("not_found", `no image named "${name}"`, {
      hint: others.length > 0 ? `${similar ? `did you mean ${similar}? ` : ""}${list}` : undefined,
      subject:
        canBeBuilt || others.length === 0 ? { kind: "installation", data_dir: dataDir, ...image } : undefined,
    })
  }
  // Names are untrusted and become paths here.
  if (name.includes("/") || name.startsWith(".")) throw await missing()
  const current = join(images, "current.json")
  const hash = options.hash ?? (await readManifest(dataDir, current, Current, missing)).hash
  const manifestPath = join(images, `${hash}.json`)
  const lost = () => damaged(dataDir, manifestPath)
  const manifest = await readManifest(dataDir, manifestPath, ImageManifest, lost)
  if (manifest.hash !== hash || manifest.name !== name) throw lost()
  const file = join(images, `${hash}.raw`)
  await checkImage(dataDir, file, manifest, options.check ?? "sizes")
  const { digest, sizeMib, kernelVersion, programs, services, initSystem, config } = manifest
  return { name, hash, file, digest, sizeMib, kernelVersion, programs, services, initSystem, config }
}

/** The current image of every name, in the order of names. */
export async function listImages(dataDir: string): Promise<ListedImage[]> {
  const read = async (name: string): Promise<ListedImage> => {
    const image = await readImage(dataDir, name)
    const { blocks } = await stat(image.file)
    // The disk is a link to the cache's; its link in this directory is as old as the installation.
    const { mtime } = await stat(join(dataDir, "images", name, "current.json"))
    return { ...image, usedMib: Math.ceil((blocks * 512) / mebibyte), installedAt: mtime.toISOString() }
  }
  const listed = await Promise.all(
    // Disks of users come and go, also while they are listed.
    (await imageNames(dataDir)).map((name) =>
      isDiskName(name) ? unlessDamaged(read(name).catch(whenMissing)) : read(name),
    ),
  )
  return listed.filter((image) => image !== undefined)
}

/** All installed images that are complete, of every name. */
export async function listAllImages(dataDir: string): Promise<InstalledImage[]> {
  const found: (InstalledImage | undefined)[] = []
  for (const name of await imageNames(dataDir)) {
    for (const entry of await readdir(join(dataDir, "images", name))) {
      const hash = /^([0-9a-f]+)\.json$/.exec(entry)?.[1]
      if (hash !== undefined) found.push(await unlessDamaged(readImage(dataDir, name, { hash })))
    }
  }
  return found.filter((image) => image !== undefined)
}

async function unlessDamaged<T>(reading: Promise<T>): Promise<T | undefined> {
  try {
    return await reading
  } catch (error) {
    if (error instanceof AppError && error.code === "not_found") return undefined
    throw error
  }
}

export async function imageNames(dataDir: string): Promise<string[]> {
  const images = join(dataDir, "images")
  if (!(await exists(images))) return []
  const names: string[] = []
  for (const entry of await readdir(images, { withFileTypes: true })) {
    if (entry.isDirectory() && (await exists(join(images, entry.name, "current.json"))))
      names.push(entry.name)
  }
  return names.sort()
}

async function readManifest<T>(
  dataDir: string,
  path: string,
  schema: z.ZodType<T>,
  missing: () => AppError | Promise<AppError>,
): Promise<T> {
  const text = unlessMissing(() => readFileSync(path, "utf8"))
  if (text === undefined) throw await missing()
  try {
    return schema.parse(JSON.parse(text))
  } catch (cause) {
    throw damaged(dataDir, path, cause)
  }
}
