/**
 * What is written beside every artifact and proves it complete: sizes always, digests on request. A reader accepts
 * only what its manifest proves.
 */
import { createHash } from "node:crypto"
import { stat } from "node:fs/promises"
import { join } from "node:path"
import { z } from "zod"
import { AppError } from "../contract/errors.ts"
import { diskDigest } from "./sparse.ts"

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
  /** As `uname -r` says it in the guest. */
  version: z.string().min(1),
  package: z.string().min(1),
  packageVersion: z.string().min(1),
  files: z.strictObject({ vmlinux: FileProof, initramfs: FileProof }),
})
export type KernelManifest = z.infer<typeof KernelManifest>

export const ImageManifest = z.strictObject({
  kind: z.literal("image"),
  hash: Hash,
  name: z.string().min(1),
  sizeMib: z.int().positive(),
  /** What `sparse.ts` computes, not the SHA-256 of the whole file: that would read all its holes. */
  digest: Digest,
  /** Whose modules the image holds; with another kernel it runs, but `modprobe` finds nothing. */
  kernelVersion: z.string().min(1),
})
export type ImageManifest = z.infer<typeof ImageManifest>

export const Current = z.strictObject({ hash: Hash })
export type Current = z.infer<typeof Current>

/** How much a reader checks: sizes take microseconds, digests read everything. */
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

export async function checkKernel(directory: string, manifest: KernelManifest, check: Check): Promise<void> {
  for (const name of kernelFiles) {
    const path = join(directory, name)
    const proof = manifest.files[name]
    await checkSize(path, proof.size)
    if (check === "digests" && (await proveFile(path)).sha256 !== proof.sha256) throw damaged(path)
  }
}

export async function checkImage(file: string, manifest: ImageManifest, check: Check): Promise<void> {
  await checkSize(file, manifest.sizeMib * 1024 * 1024)
  if (check === "digests" && (await diskDigest(file)) !== manifest.digest) throw damaged(file)
}

async function checkSize(path: string, size: number): Promise<void> {
  const file = Bun.file(path)
  if (!(await file.exists()) || file.size !== size) throw damaged(path)
}

function damaged(path: string): AppError {
  return new AppError("not_found", `the file ${path} is missing or damaged`, { hint: "sudo bhatti init" })
}
