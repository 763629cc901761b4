/** Installing again puts whole files in the place of damaged ones, and only those. */
import { afterAll, expect, test } from "bun:test"
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs"
import { truncate } from "node:fs/promises"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { sealJson } from "../lib/sealed-json.ts"
import { type InstalledImage, readImage, readKernel } from "./artifacts.ts"
import { ArtifactChecks } from "./checks.ts"
import { healInstalled, installImage, installKernel } from "./install.ts"
import { hashLength, type ImageManifest, type KernelManifest, kernelHash, proveFile } from "./manifest.ts"
import type { BuiltImage } from "./rootfs.ts"
import { diskDigest } from "./sparse.ts"
import { listDamage } from "./survey.ts"
import { isVerified, markOf } from "./verified-disk.ts"
import { identityOfKernel, isKernelVerified } from "./verified-kernel.ts"
import { isWholeTree, recordTree } from "./verified-tree.ts"

const root = mkdtempSync(join(tmpdir(), "bhatti-install-"))
afterAll(() => rmSync(root, { recursive: true, force: true }))

let made = 0
function place(): { dataDir: string; cacheDir: string } {
  made += 1
  return { dataDir: join(root, `${made}`, "data"), cacheDir: join(root, `${made}`, "cache") }
}

async function cachedKernel(cacheDir: string, content: string): Promise<{ hash: string; dir: string }> {
  const beside = join(cacheDir, "kernels", "beside")
  await Bun.write(join(beside, "vmlinux"), content)
  await Bun.write(join(beside, "initramfs"), "cpio")
  const files = {
    vmlinux: await proveFile(join(beside, "vmlinux")),
    initramfs: await proveFile(join(beside, "initramfs")),
  }
  const version = "6.1.0"
  const hash = kernelHash(files, version)
  const about = { kind: "kernel", hash, version, package: "linux", packageVersion: "1" } as const
  await Bun.write(join(beside, "manifest.json"), JSON.stringify({ ...about, files } satisfies KernelManifest))
  const dir = join(cacheDir, "kernels", hash)
  cpSync(beside, dir, { recursive: true })
  return { hash, dir }
}

async function cachedImage(cacheDir: string, content: string): Promise<BuiltImage> {
  const file = join(cacheDir, "images", `minimal-${content}`, "disk.raw")
  await Bun.write(file, content)
  await truncate(file, 2 * 1024 * 1024)
  const digest = await diskDigest(file)
  const hash = digest.slice(0, hashLength)
  const about = { kind: "image", hash, name: "minimal", sizeMib: 2, digest, kernelVersion: "6.1.0" } as const
  await Bun.write(join(dirname(file), "manifest.json"), JSON.stringify(about satisfies ImageManifest))
  return { name: "minimal", hash, file, sizeMib: 2 }
}

/** In a file of its own, as a copy that was put back would be. `isHidden`: with the time of change that it had. */
function flip(path: string, { isHidden = false } = {}): void {
  const { mtime } = statSync(path)
  const bytes = readFileSync(path)
  bytes[0] = (bytes[0] ?? 0) ^ 4
  if (!isHidden) rmSync(path)
  writeFileSync(path, bytes)
  if (isHidden) utimesSync(path, mtime, mtime)
}

async function errorOf(promise: Promise<unknown>): Promise<AppError | undefined> {
  const error: unknown = await promise.then(() => undefined).catch((reason: unknown) => reason)
  if (error !== undefined && !(error instanceof AppError)) throw error
  return error
}

test.each(["vmlinux", "initramfs", "manifest.json"])(
  "a kernel's %s that was changed is found, and installing it again heals it",
  async (name) => {
    const { dataDir, cacheDir } = place()
    const built = await cachedKernel(cacheDir, "elf")
    const kernel = await installKernel(dataDir, built)
    const path = join(dataDir, "kernels", built.hash, name)
    flip(path)
    const [found] = await listDamage(dataDir)
    expect(found?.message).toContain(path)
    expect(found?.subject).toEqual({ kind: "installation", data_dir: dataDir })
    const checks = new ArtifactChecks(dataDir, () => {})
    if (name !== "manifest.json") expect((await errorOf(checks.kernel(kernel)))?.message).toContain(path)
    await installKernel(dataDir, built)
    expect(await listDamage(dataDir)).toEqual([])
    expect(await checks.kernel(kernel)).toEqual(kernel)
  },
)

test("an image that was changed is found, also by who was told before that it is whole, and installing heals it", async () => {
  const { dataDir, cacheDir } = place()
  const built = await cachedImage(cacheDir, "content")
  const image = await installImage(dataDir, built)
  const told: AppError[] = []
  const checks = new ArtifactChecks(dataDir, (error) => told.push(error))
  expect(await checks.image(image)).toEqual(image)
  flip(image.file)
  const error = await errorOf(checks.image(image))
  expect(error?.message).toBe(`the file ${image.file} is missing or damaged`)
  expect(error?.subject).toEqual({ kind: "installation", data_dir: dataDir })
  expect((await errorOf(checks.imageOf(image)))?.message).toContain(image.file)
  expect(told).toHaveLength(1)
  expect((await listDamage(dataDir)).map(({ message }) => message)).toEqual([error?.message ?? ""])
  await installImage(dataDir, built)
  expect(await checks.image(image)).toEqual(image)
  expect(await listDamage(dataDir)).toEqual([])
})

test("nobody waits for an image whose file is the one that was found whole; it is read again, and a change found", async () => {
  const { dataDir, cacheDir } = place()
  const built = await cachedImage(cacheDir, "content")
  utimesSync(built.file, 1_700_000_000, 1_700_000_000)
  const image = await installImage(dataDir, built)
  await new ArtifactChecks(dataDir, () => {}).image(image)
  expect(isVerified(image.file, image.digest)).toBe(true)
  flip(image.file, { isHidden: true })
  expect(isVerified(image.file, image.digest)).toBe(true)
  const found = Promise.withResolvers<AppError>()
  const checks = new ArtifactChecks(dataDir, found.resolve)
  expect(await checks.image(image)).toEqual(image)
  expect((await found.promise).message).toContain(image.file)
  expect((await errorOf(checks.image(image)))?.message).toContain(image.file)
})

test("nobody waits for a kernel whose files are those that were found whole; it is read again, and damage found", async () => {
  const { dataDir, cacheDir } = place()
  const kernel = await installKernel(dataDir, await cachedKernel(cacheDir, "content"))
  const mark = markOf(dirname(kernel.vmlinux))
  const look = () => errorOf(new ArtifactChecks(dataDir, () => {}).kernel(kernel))
  const installedMs = statSync(dirname(kernel.vmlinux)).mtimeMs
  expect([existsSync(mark), await look(), isKernelVerified(kernel)]).toEqual([false, undefined, true])
  // Kernels are put in the order of their installation.
  expect(statSync(dirname(kernel.vmlinux)).mtimeMs).toBe(installedMs)

  flip(kernel.initramfs, { isHidden: true })
  for (const text of [readFileSync(mark, "utf8"), "", "{}"]) {
    writeFileSync(mark, text)
    expect([(await look())?.message.includes(kernel.initramfs), isKernelVerified(kernel)]).toEqual([
      true,
      false,
    ])
  }
  // As a failing disk changes it, which no time of a file tells.
  writeFileSync(mark, sealJson({ digest: kernel.hash, identity: identityOfKernel(kernel) }))
  const found = Promise.withResolvers<AppError>()
  const checks = new ArtifactChecks(dataDir, found.resolve)
  expect(await checks.kernel(kernel)).toEqual(kernel)
  expect((await found.promise).message).toContain(kernel.initramfs)
  expect((await errorOf(checks.kernel(kernel)))?.message).toContain(kernel.initramfs)
})

test("a mark that is damaged or of another disk makes no disk whole", async () => {
  const { dataDir, cacheDir } = place()
  const other = await installImage(dataDir, await cachedImage(cacheDir, "other"))
  const image = await installImage(dataDir, await cachedImage(cacheDir, "content"))
  const look = async (one: InstalledImage) => errorOf(new ArtifactChecks(dataDir, () => {}).image(one))
  expect(await look(other)).toBeUndefined()
  expect(await look(image)).toBeUndefined()
  const own = readFileSync(markOf(image.file), "utf8")
  for (const mark of ["", own.slice(10), readFileSync(markOf(other.file), "utf8"), own.replace("7", "8")]) {
    writeFileSync(markOf(image.file), mark)
    expect(await look(image)).toBeUndefined()
  }
  flip(image.file)
  for (const mark of ["", own.slice(10), readFileSync(markOf(other.file), "utf8"), own]) {
    writeFileSync(markOf(image.file), mark)
    expect((await look(image))?.message).toContain(image.file)
  }
})

test("what sandboxes still need of earlier installations is healed where the cache has it, and told where not", async () => {
  const { dataDir, cacheDir } = place()
  const kernels = [await cachedKernel(cacheDir, "old"), await cachedKernel(cacheDir, "lost")]
  const images = [await cachedImage(cacheDir, "old"), await cachedImage(cacheDir, "lost")]
  const paths: string[] = []
  for (const kernel of kernels) paths.push((await installKernel(dataDir, kernel)).vmlinux)
  for (const image of images) paths.push((await installImage(dataDir, image)).file)
  for (const path of paths) flip(path)
  rmSync(kernels[1]?.dir ?? "", { recursive: true })
  rmSync(dirname(images[1]?.file ?? ""), { recursive: true })
  const left = await healInstalled(dataDir, cacheDir)
  expect(left.map(({ message }) => message)).toEqual(
    [paths[1], paths[3]].map((path) => `the file ${path} is missing or damaged`),
  )
  await readKernel(dataDir, { hash: kernels[0]?.hash ?? "", check: "digests" })
  await readImage(dataDir, "minimal", { hash: images[0]?.hash ?? "", check: "digests" })
})

test("an unpacked package of which any file was changed, added or lost is not whole", async () => {
  const tree = join(root, "tree")
  const names = ["vmlinux", "modules/kernel/a.ko", "modules/modules.dep"]
  for (const name of names) await Bun.write(join(tree, name), name)
  await recordTree(tree)
  expect(await isWholeTree(tree)).toBe(true)
  for (const name of names) {
    await Bun.write(join(tree, name), "other")
    expect([name, await isWholeTree(tree)]).toEqual([name, false])
    rmSync(join(tree, name))
    expect([name, await isWholeTree(tree)]).toEqual([name, false])
    await Bun.write(join(tree, name), name)
  }
  await Bun.write(join(tree, "modules/b.ko"), "new")
  expect(await isWholeTree(tree)).toBe(false)
})
