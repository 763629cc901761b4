/** Gives an unpacked disk its place among the host's images: complete, checked and durable, or not at all. */

import { createHash } from "node:crypto"
import { chmod, mkdir, rename, stat } from "node:fs/promises"
import { join } from "node:path"
import type { ImageConfig } from "@bhatti/contract/image-config"
import { renameDurably, syncPath, writeSynced } from "../../lib/durable.ts"
import { errorCodeOf } from "../../lib/error-code.ts"
import { exists } from "../../lib/missing-files.ts"
import { readImage } from "../artifacts.ts"
import { hashLength, type ImageManifest } from "../manifest.ts"
import { diskDigest } from "../sparse.ts"

/** Images of others hold no modules; the guest takes the kit's. */
const noKernel = "none"

type About = {
  config: ImageConfig
  services?: readonly NonNullable<ImageManifest["services"]>[number][]
} & Pick<ImageManifest, "initSystem" | "programs">

export async function commitDisk(
  options: About & {
    dataDir: string
    /** Where the image's directory is put together. */
    staging: string
    diskName: string
    disk: string
    sizeMib: number
  },
): Promise<void> {
  const { dataDir, diskName, disk, sizeMib } = options
  const about = aboutOf(options)
  const target = join(dataDir, "images", diskName)
  if (await exists(target)) return
  const directory = join(options.staging, "image")
  await mkdir(directory, { mode: 0o755 })
  await chmod(disk, 0o444)
  const digest = await diskDigest(disk)
  const { config, ...more } = about
  const words = Object.keys(more).length > 0 ? [JSON.stringify(more)] : []
  const text = [diskName, digest, JSON.stringify(config), ...words].join("\n")
  const hash = createHash("sha256").update(text).digest("hex").slice(0, hashLength)
  await rename(disk, join(directory, `${hash}.raw`))
  await syncPath(join(directory, `${hash}.raw`))
  const manifest: ImageManifest = {
    kind: "image",
    hash,
    name: diskName,
    sizeMib,
    digest,
    kernelVersion: noKernel,
    ...about,
  }
  await writeSynced(join(directory, `${hash}.json`), JSON.stringify(manifest), "wx")
  await writeSynced(join(directory, "current.json"), JSON.stringify({ hash }), "wx")
  await mkdir(join(dataDir, "images"), { recursive: true })
  try {
    await renameDurably(directory, target)
  } catch (error) {
    if (!["EEXIST", "ENOTEMPTY"].includes(errorCodeOf(error) ?? "")) throw error
  }
}

/** Fields that say nothing are left out. */
function aboutOf({ config, services = [], initSystem = false, programs }: About) {
  return {
    config,
    ...(services.length > 0 && { services: [...services] }),
    ...(initSystem && { initSystem }),
    ...(programs && { programs }),
  }
}

export type MadeDisk = {
  diskName: string
  hash: string
  diskMib: number
  /** Its space. */
  bytes: number
  config: ImageConfig
}

/** Returns the disk if it is here. */
export async function findMade(dataDir: string, diskName: string): Promise<MadeDisk | undefined> {
  if (!(await exists(join(dataDir, "images", diskName)))) return undefined
  const { hash, sizeMib, file, config } = await readImage(dataDir, diskName)
  if (!config) throw new Error(`${diskName} has no configuration`)
  return { diskName, hash, diskMib: sizeMib, bytes: await spaceOf(file), config }
}

async function spaceOf(file: string): Promise<number> {
  return (await stat(file)).blocks * 512
}
