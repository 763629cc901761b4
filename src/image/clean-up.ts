/**
 * Removes images, kernels and kits of a data directory that will not be used again. An image is part of every template
 * made from it; a kernel is needed as long as an image holds its modules. The current ones stay. Previous and new
 * ones stay for an hour, since an operation that uses one may not have recorded it yet.
 */

import { rm, stat } from "node:fs/promises"
import { dirname, join } from "node:path"
import { listAllImages, listKernels, readImage, readKernel, readKernelFor } from "./artifacts.ts"
import { type NeededKits, removeUnusedKits } from "./kits.ts"
import { markOf } from "./verified-disk.ts"

const graceMs = 3_600_000

/** `neededImages` are hashes, `neededKits` paths below the data directory. Returns the removed paths. */
export async function removeUnusedArtifacts(
  dataDir: string,
  options: { neededImages: ReadonlySet<string>; neededKits: NeededKits; nowMs: number },
): Promise<string[]> {
  const isOld = async (path: string) => options.nowMs - (await stat(path)).ctimeMs > graceMs
  const removed: string[] = []

  const neededKernels = new Set([(await readKernel(dataDir)).hash])
  for (const image of await listAllImages(dataDir)) {
    const directory = dirname(image.file)
    const manifest = join(directory, `${image.hash}.json`)
    const isNeeded =
      options.neededImages.has(image.hash) || (await readImage(dataDir, image.name)).hash === image.hash
    if (isNeeded || !(await isOld(manifest)) || !(await isOld(join(directory, "current.json")))) {
      neededKernels.add((await readKernelFor(dataDir, image)).hash)
      continue
    }
    // A file without a manifest does not count as installed.
    await rm(manifest)
    await rm(image.file)
    await rm(markOf(image.file), { force: true })
    removed.push(image.file)
  }

  const mayGo = await isOld(join(dataDir, "kernels", "current.json"))
  for (const kernel of await listKernels(dataDir)) {
    const directory = dirname(kernel.vmlinux)
    if (neededKernels.has(kernel.hash) || !mayGo || !(await isOld(directory))) continue
    await rm(directory, { recursive: true })
    await rm(markOf(directory), { force: true })
    removed.push(directory)
  }
  const kits = { needed: options.neededKits, kernels: await listKernels(dataDir), isOld }
  return [...removed, ...(await removeUnusedKits(dataDir, kits))]
}
