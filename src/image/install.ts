/**
 * Installs kernels and images in a data directory by linking them from the cache, and replaces damaged files with
 * intact ones.
 *
 *     DATA/kernels/HASH/{vmlinux,initramfs,manifest.json}     DATA/kernels/current.json
 *     DATA/images/NAME/HASH.raw  HASH.json                    DATA/images/NAME/current.json
 */
import { dirname, join } from "node:path"
import type { AppError } from "@bhatti/contract/errors"
import { exists } from "../lib/missing-files.ts"
import { parseJson } from "../lib/parse-json.ts"
import { type InstalledImage, type InstalledKernel, readImage, readKernel } from "./artifacts.ts"
import { commitDirectory, commitLink, commitText, replaceByLink } from "./commit.ts"
import { entriesOf } from "./entries.ts"
import type { BuiltKernel } from "./kernel.ts"
import { healKits } from "./kits.ts"
import { type Current, damageOf, ImageManifest, kernelFiles } from "./manifest.ts"
import { hasSameBytes, heal } from "./replace-damaged.ts"
import type { BuiltImage } from "./rootfs.ts"
import { imageHashes, kernelHashes } from "./survey.ts"
import { verifyDisk } from "./verified-disk.ts"

const kernelNames = [...kernelFiles, "manifest.json"] as const

/** A new build must be intact. */
export async function installKernel(
  dataDir: string,
  built: Pick<BuiltKernel, "hash" | "dir">,
): Promise<InstalledKernel> {
  const directory = join(dataDir, "kernels", built.hash)
  await commitDirectory(directory, async (beside) => {
    for (const name of kernelNames) await commitLink(join(built.dir, name), join(beside, name))
  })
  for (const name of kernelNames) await heal(join(built.dir, name), join(directory, name), hasSameBytes)
  const installed = await readKernel(dataDir, { hash: built.hash })
  await setCurrent(join(dataDir, "kernels"), built.hash)
  return installed
}

/** A new build must be intact. */
export async function installImage(dataDir: string, built: BuiltImage): Promise<InstalledImage> {
  const directory = join(dataDir, "images", built.name)
  await linkImage(directory, built)
  const installed = await readImage(dataDir, built.name, { hash: built.hash })
  await setCurrent(directory, built.hash)
  return installed
}

async function linkImage(directory: string, { hash, file }: { hash: string; file: string }): Promise<void> {
  const manifest = join(dirname(file), "manifest.json")
  const { digest } = ImageManifest.parse(await Bun.file(manifest).json())
  const target = join(directory, `${hash}.raw`)
  await commitLink(file, target)
  await heal(file, target, () => verifyDisk(target, digest))
  // The manifest comes last: a file without one does not count as installed.
  await commitLink(manifest, join(directory, `${hash}.json`))
  await heal(manifest, join(directory, `${hash}.json`), hasSameBytes)
}

/**
 * Repairs other installed files, which existing sandboxes were made from, as far as the cache still has them.
 * Returns an error for each file that stays damaged.
 */
export async function healInstalled(dataDir: string, cacheDir: string): Promise<AppError[]> {
  const left: (AppError | undefined)[] = []
  for (const hash of kernelHashes(dataDir)) {
    const look = () => damageOf(readKernel(dataDir, { hash, check: "digests" }))
    if ((await look()) === undefined) continue
    const source = join(cacheDir, "kernels", hash)
    const directory = join(dataDir, "kernels", hash)
    if (await exists(source))
      for (const name of kernelNames) await replaceByLink(join(source, name), join(directory, name))
    left.push(await look())
  }
  for (const { name, hash } of imageHashes(dataDir)) {
    const look = () => damageOf(readImage(dataDir, name, { hash, check: "digests" }))
    if ((await look()) === undefined) continue
    const file = await findCachedImage(cacheDir, hash)
    if (file !== undefined) await linkImage(join(dataDir, "images", name), { hash, file })
    left.push(await look())
  }
  return [...left.filter((error) => error !== undefined), ...(await healKits(dataDir, cacheDir))]
}

/** Returns an intact image with that hash, or undefined. */
async function findCachedImage(cacheDir: string, hash: string): Promise<string | undefined> {
  for (const entry of entriesOf(join(cacheDir, "images"), /^([^.].*)$/)) {
    const directory = join(cacheDir, "images", entry)
    const manifestFile = Bun.file(join(directory, "manifest.json"))
    const text = (await manifestFile.exists()) ? await manifestFile.text() : ""
    const manifest = ImageManifest.safeParse(parseJson(text)).data
    const file = join(directory, "disk.raw")
    if (manifest?.hash === hash && (await verifyDisk(file, manifest.digest))) return file
  }
  return undefined
}

async function setCurrent(directory: string, hash: string): Promise<void> {
  await commitText(join(directory, "current.json"), `${JSON.stringify({ hash } satisfies Current)}\n`)
}
