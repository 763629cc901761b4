/** Lists all damaged kernels and images of a data directory, for the doctor. Changes nothing. */
import { join } from "node:path"
import type { AppError } from "@bhatti/contract/errors"
import { limits } from "@bhatti/contract/limits"
import { exists } from "../lib/missing-files.ts"
import { type InstalledImage, readImage, readKernel } from "./artifacts.ts"
import { entriesOf } from "./entries.ts"
import { kitDamage } from "./kits.ts"
import { damaged, damageOf } from "./manifest.ts"
import { verifyDisk } from "./verified-disk.ts"

/** A missing file that was never installed is not damage. */
export async function listDamage(dataDir: string): Promise<AppError[]> {
  const kernels = join(dataDir, "kernels")
  const errors = (await exists(join(kernels, "current.json"))) ? [await damageOf(readKernel(dataDir))] : []
  for (const hash of kernelHashes(dataDir))
    errors.push(await damageOf(readKernel(dataDir, { hash, check: "digests" })))
  for (const { name, hash } of imageHashes(dataDir))
    errors.push(await damageOf(readWhole(dataDir, name, hash)))
  for (const name of entriesOf(join(dataDir, "images"), /^([^.].*)$/))
    if (await exists(join(dataDir, "images", name, "current.json")))
      errors.push(await damageOf(readImage(dataDir, name)))
  const found = [...errors.filter((error) => error !== undefined), ...(await kitDamage(dataDir))]
  return [...new Map(found.map((error) => [error.message, error])).values()]
}

/** Returns whether a kernel and the default image were installed. */
export async function isInstalled(dataDir: string): Promise<boolean> {
  const names = ["kernels/current.json", `images/${limits.imageDefault}/current.json`]
  return (await Promise.all(names.map((name) => exists(join(dataDir, name))))).every(Boolean)
}

async function readWhole(dataDir: string, name: string, hash: string): Promise<InstalledImage> {
  const image = await readImage(dataDir, name, { hash })
  if (!(await verifyDisk(image.file, image.digest, { isKept: false }))) throw damaged(dataDir, image.file)
  return image
}

export function kernelHashes(dataDir: string): string[] {
  return entriesOf(join(dataDir, "kernels"), /^([0-9a-f]{16})$/)
}

export function imageHashes(dataDir: string): { name: string; hash: string }[] {
  const found: { name: string; hash: string }[] = []
  for (const name of entriesOf(join(dataDir, "images"), /^([^.].*)$/))
    for (const hash of entriesOf(join(dataDir, "images", name), /^([0-9a-f]{16})\.json$/))
      found.push({ name, hash })
  return found
}
