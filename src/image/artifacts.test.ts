/** Installing, finding and refusing artifacts, with tiny ones made here. */
import { afterAll, expect, test } from "bun:test"
import { chmodSync, mkdtempSync, rmSync } from "node:fs"
import { exists, mkdir, rm, stat, truncate, utimes, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { adviceFor } from "../cli/advice.ts"
import { listAllImages, listImages, listKernels, readImage, readKernel, readKernelFor } from "./artifacts.ts"
import { removeUnusedArtifacts } from "./clean-up.ts"
import { installImage, installKernel } from "./install.ts"
import type { BuiltKernel } from "./kernel.ts"
import { hashLength, type ImageManifest, type KernelManifest, kernelHash, proveFile } from "./manifest.ts"
import type { BuiltImage } from "./rootfs.ts"
import { diskDigest } from "./sparse.ts"

const root = mkdtempSync(join(tmpdir(), "bhatti-artifacts-"))
afterAll(() => rmSync(root, { recursive: true, force: true }))

let made = 0
async function emptyDirectory(): Promise<string> {
  made += 1
  const path = join(root, String(made))
  await mkdir(path)
  return path
}

async function fakeKernel(content: string, version = "6.1.0"): Promise<BuiltKernel> {
  const dir = await emptyDirectory()
  await writeFile(join(dir, "vmlinux"), content)
  await writeFile(join(dir, "initramfs"), "cpio")
  const files = {
    vmlinux: await proveFile(join(dir, "vmlinux")),
    initramfs: await proveFile(join(dir, "initramfs")),
  }
  const hash = kernelHash(files, version)
  const manifest: KernelManifest = {
    kind: "kernel",
    hash,
    version,
    package: "linux",
    packageVersion: "1",
    files,
  }
  await writeFile(join(dir, "manifest.json"), JSON.stringify(manifest))
  return { version, hash, dir, modulesDir: "" }
}

async function fakeImage(name: string, content: string, kernelVersion = "6.1.0"): Promise<BuiltImage> {
  const dir = await emptyDirectory()
  const file = join(dir, "disk.raw")
  await writeFile(file, content)
  await truncate(file, 2 * 1024 * 1024)
  const digest = await diskDigest(file)
  const hash = digest.slice(0, hashLength)
  const manifest: ImageManifest = { kind: "image", hash, name, sizeMib: 2, digest, kernelVersion }
  await writeFile(join(dir, "manifest.json"), JSON.stringify(manifest))
  return { name, hash, file, sizeMib: 2 }
}

async function expectNotFound(promise: Promise<unknown>): Promise<void> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  if (!(error instanceof AppError)) throw new Error("did not fail with an AppError")
  expect(error.code).toBe("not_found")
  expect(error.subject?.kind).toBe("installation")
}

test("a kernel is found after it was installed, and installing again changes nothing", async () => {
  const dataDir = await emptyDirectory()
  const built = await fakeKernel("one")
  await installKernel(dataDir, built)
  const { ino } = await stat(join(dataDir, "kernels", built.hash, "vmlinux"))
  await installKernel(dataDir, built)
  const found = await readKernel(dataDir, { check: "digests" })
  expect(found.hash).toBe(built.hash)
  expect((await stat(found.vmlinux)).ino).toBe(ino)
})

test("a newer kernel becomes the current one and the older stays", async () => {
  const dataDir = await emptyDirectory()
  const [one, two] = [await fakeKernel("one"), await fakeKernel("two")]
  await installKernel(dataDir, one)
  await installKernel(dataDir, two)
  expect((await readKernel(dataDir)).hash).toBe(two.hash)
  expect((await readKernel(dataDir, { hash: one.hash })).hash).toBe(one.hash)
})

test("an image gets the newest kernel whose modules it holds, and the current one when there is none", async () => {
  const dataDir = await emptyDirectory()
  const old = await installImage(dataDir, await fakeImage("minimal", "old", "6.1.0"))
  const older = await installImage(dataDir, await fakeImage("minimal", "older", "6.0.0"))
  const first = await installKernel(dataDir, await fakeKernel("first", "6.1.0"))
  await utimes(join(dataDir, "kernels", first.hash), 1, 1)
  const second = await installKernel(dataDir, await fakeKernel("second", "6.1.0"))
  const current = await installKernel(dataDir, await fakeKernel("current", "6.2.0"))
  expect((await readKernelFor(dataDir, old)).hash).toBe(second.hash)
  expect((await readKernelFor(dataDir, older)).hash).toBe(current.hash)
  chmodSync(second.vmlinux, 0o644)
  await truncate(second.vmlinux, 1)
  expect((await readKernelFor(dataDir, old)).hash).toBe(first.hash)
})

test("images that nothing lies on go, and the kernels that nothing else needs; not those used next, nor young ones", async () => {
  const dataDir = await emptyDirectory()
  const [lived, left, current] = [
    await installImage(dataDir, await fakeImage("minimal", "one", "6.0.0")),
    await installImage(dataDir, await fakeImage("minimal", "two", "6.1.0")),
    await installImage(dataDir, await fakeImage("minimal", "three", "6.2.0")),
  ]
  const [zero, one, two] = [
    await installKernel(dataDir, await fakeKernel("zero", "6.0.0")),
    await installKernel(dataDir, await fakeKernel("one", "6.1.0")),
    await installKernel(dataDir, await fakeKernel("two", "6.2.0")),
  ]
  const neededImages = new Set([lived.hash])
  const neededKits = async () => new Set<string>()
  expect(await removeUnusedArtifacts(dataDir, { neededImages, neededKits, nowMs: Date.now() })).toEqual([])
  const tomorrowMs = Date.now() + 86_400_000
  const removed = await removeUnusedArtifacts(dataDir, { neededImages, neededKits, nowMs: tomorrowMs })
  expect(removed).toEqual([left.file, join(dataDir, "kernels", one.hash)])
  expect((await listAllImages(dataDir)).map(({ hash }) => hash).sort()).toEqual(
    [lived.hash, current.hash].sort(),
  )
  expect((await listKernels(dataDir)).map(({ hash }) => hash).sort()).toEqual([zero.hash, two.hash].sort())
  expect(await exists(left.file)).toBe(false)
  expect(await removeUnusedArtifacts(dataDir, { neededImages, neededKits, nowMs: tomorrowMs })).toEqual([])
})

test("what is missing is not found and the hint says what to do", async () => {
  const dataDir = await emptyDirectory()
  await expectNotFound(readKernel(dataDir))
  await expectNotFound(readImage(dataDir, "minimal"))
  await expectNotFound(readImage(dataDir, "../images/minimal"))
  expect(await listImages(dataDir)).toEqual([])
})

test("a file of the wrong size is refused at once, wrong content when digests are checked", async () => {
  const dataDir = await emptyDirectory()
  const image = await installImage(dataDir, await fakeImage("minimal", "content"))
  chmodSync(image.file, 0o644)
  await writeFile(image.file, "CONTENT", { flag: "r+" })
  expect((await readImage(dataDir, "minimal")).hash).toBe(image.hash)
  await expectNotFound(readImage(dataDir, "minimal", { check: "digests" }))
  await truncate(image.file, 1000)
  await expectNotFound(readImage(dataDir, "minimal"))
  await rm(image.file)
  await expectNotFound(readImage(dataDir, "minimal"))
})

test("a damaged manifest is refused", async () => {
  const dataDir = await emptyDirectory()
  const kernel = await installKernel(dataDir, await fakeKernel("one"))
  const manifest = join(dataDir, "kernels", kernel.hash, "manifest.json")
  await rm(manifest)
  await writeFile(manifest, '{"kind":"kernel"')
  await expectNotFound(readKernel(dataDir))
})

test("every name is listed once, with its current image, also for who asks for one that is not there", async () => {
  const dataDir = await emptyDirectory()
  await installImage(dataDir, await fakeImage("minimal", "one"))
  const minimal = await installImage(dataDir, await fakeImage("minimal", "two"))
  const docker = await installImage(dataDir, await fakeImage("docker", "three"))
  const listed = await listImages(dataDir)
  expect(listed.map(({ name, hash }) => [name, hash])).toEqual([
    ["docker", docker.hash],
    ["minimal", minimal.hash],
  ])
  expect(listed.every(({ installedAt }) => Date.parse(installedAt) > 0)).toBe(true)
  const hintFor = (name: string) => readImage(dataDir, name).catch(adviceFor)
  expect(await hintFor("minmal")).toBe("did you mean minimal? images of this host: docker, minimal")
  expect(await hintFor("workspace")).toBe(
    `images of this host: docker, minimal; to install it: sudo bhatti init --data-dir ${dataDir}`,
  )
})
