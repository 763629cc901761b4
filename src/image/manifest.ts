/**
 * The manifest beside every artifact, which proves it complete: sizes always, digests on request. A reader accepts
 * only files that match their manifest.
 */
import { createHash } from "node:crypto"
import { stat } from "node:fs/promises"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { ImageConfig } from "@bhatti/contract/image-config"
import { z } from "zod"
import { isReadable, verifyDisk } from "./verified-disk.ts"

/** Ids are the first 16 hex digits of a digest over the content. */
export const hashLength = 16
const Hash = z.string().regex(/^[0-9a-f]{16}$/)
const Digest = z.string().regex(/^[0-9a-f]{64}$/)
const FileProof = z.strictObject({ size: z.int().nonnegative(), sha256: Digest })
export type FileProof = z.infer<typeof FileProof>

export const kernelFiles = ["vmlinux", "initramfs"] as const

export const KernelManifest = z.strictObject({
  kind: z.literal("kernel"),
  hash: Hash,
  /** As `uname -r` reports it in the guest. */
  version: z.string().min(1),
  package: z.string().min(1),
  packageVersion: z.string().min(1),
  files: z.strictObject({ vmlinux: FileProof, initramfs: FileProof }),
})
export type KernelManifest = z.infer<typeof KernelManifest>

const ImageService = z.strictObject({
  name: z.string().min(1),
  command: z.string().min(1),
  user: z.string().nullable(),
  cwd: z.string().nullable(),
  restart: z.enum(["always", "on-failure", "never"]),
  after: z.array(z.string()),
})

export const ImageManifest = z.strictObject({
  kind: z.literal("image"),
  hash: Hash,
  name: z.string().min(1),
  sizeMib: z.int().positive(),
  /** The digest that `sparse.ts` computes, not the SHA-256 of the whole file, which would read all its holes. */
  digest: Digest,
  /** The kernel whose modules the image holds; with another kernel the guest uses the kit's. */
  kernelVersion: z.string().min(1),
  services: z.array(ImageService).optional(),
  /** Its entry point is an init, which its sandboxes start. */
  initSystem: z.boolean().optional(),
  /** Its start command, and the command that proves it ready. */
  programs: z.strictObject({ start: z.string().min(1), ready: z.string().min(1) }).optional(),
  /** The configuration that an image of others brings along; images of our own have none. */
  config: ImageConfig.optional(),
})
export type ImageManifest = z.infer<typeof ImageManifest>

export const KitManifest = z.strictObject({
  kind: z.literal("kit"),
  hash: Hash,
  sizeMib: z.int().positive(),
  /** As that of an image. */
  digest: Digest,
  /** The kernel whose modules it holds. */
  kernelVersion: z.string().min(1),
  /** Versions of the packages that it was made from. */
  packages: z.record(z.string(), z.string()),
})
export type KitManifest = z.infer<typeof KitManifest>

/** Covers all of the manifest, so that a changed one is damaged. */
export function kitHash(about: Pick<KitManifest, "digest" | "kernelVersion" | "packages">): string {
  const packages = Object.entries(about.packages).map(([name, version]) => `${name} ${version}`)
  const text = [about.digest, about.kernelVersion, ...packages.sort()].join("\n")
  return createHash("sha256").update(text).digest("hex").slice(0, hashLength)
}

export const Current = z.strictObject({ hash: Hash })
export type Current = z.infer<typeof Current>

/** How thoroughly a reader checks: sizes take microseconds, digests read everything. */
export type Check = "sizes" | "digests"

export async function proveFile(path: string): Promise<FileProof> {
  const hash = createHash("sha256")
  for await (const chunk of Bun.file(path).stream()) hash.update(chunk)
  return { size: (await stat(path)).size, sha256: hash.digest("hex") }
}

export function kernelHash(files: KernelManifest["files"], version: string): string {
  const text = [version, ...kernelFiles.map((name) => files[name].sha256)].join("\n")
  return createHash("sha256").update(text).digest("hex").slice(0, hashLength)
}

export async function checkKernel(dataDir: string, manifest: KernelManifest, check: Check): Promise<void> {
  const directory = join(dataDir, "kernels", manifest.hash)
  for (const name of kernelFiles) {
    const path = join(directory, name)
    if (!(await isWhole(path, manifest.files[name], check))) throw damaged(dataDir, path)
  }
}

export async function checkImage(
  dataDir: string,
  file: string,
  manifest: Pick<ImageManifest, "sizeMib" | "digest">,
  check: Check,
): Promise<void> {
  if ((await sizeOf(file)) !== manifest.sizeMib * 1024 * 1024) throw damaged(dataDir, file)
  if (check === "digests" && !(await verifyDisk(file, manifest.digest))) throw damaged(dataDir, file)
}

export async function isWhole(path: string, proof: FileProof, check: Check): Promise<boolean> {
  if ((await sizeOf(path)) !== proof.size) return false
  if (check === "sizes") return true
  return isReadable(proveFile(path).then(({ sha256 }) => sha256 === proof.sha256))
}

/** Returns undefined if it is missing. */
async function sizeOf(path: string): Promise<number | undefined> {
  const file = Bun.file(path)
  return (await file.exists()) ? file.size : undefined
}

export function damaged(dataDir: string, path: string, cause?: unknown): AppError {
  return new AppError("not_found", `the file ${path} is missing or damaged`, {
    subject: { kind: "installation", data_dir: dataDir },
    cause,
  })
}

/** Returns the error if a file is missing or damaged. */
export async function damageOf(reading: Promise<unknown>): Promise<AppError | undefined> {
  try {
    await reading
    return undefined
  } catch (error) {
    if (error instanceof AppError && error.code === "not_found") return error
    throw error
  }
}
