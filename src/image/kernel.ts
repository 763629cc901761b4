/**
 * Builds the pair that every machine boots from: `vmlinux` and an initramfs with the agent and the modules it loads
 * first. Cached by content, so a new agent or a new kernel is a new artifact and old ones stay bootable.
 */
import { join } from "node:path"
import { initramfsModules } from "../../images/modules.ts"
import { commitCopy, commitDirectory, discard } from "./commit.ts"
import { compressionOf, decompress } from "./compression.ts"
import { type CpioEntry, packCpio } from "./cpio.ts"
import { fetchKernelPackage, readModules } from "./kernel-package.ts"
import { isWhole, type KernelManifest, kernelFiles, kernelHash } from "./manifest.ts"
import { loadOrder, moduleName } from "./modules.ts"
import type { Report } from "./report.ts"

export type BuiltKernel = {
  /** As `uname -r` reports it in the guest. */
  version: string
  hash: string
  /** Holds `vmlinux`, `initramfs` and `manifest.json`. */
  dir: string
  /** The module tree that belongs into images. */
  modulesDir: string
}

export async function buildKernel(options: {
  cacheDir: string
  /** The guest agent's binary. */
  agentPath: string
  report: Report
}): Promise<BuiltKernel> {
  const unpacked = await fetchKernelPackage(options)
  options.report({ step: "kernel", message: "pack the initramfs" })
  const agent = await Bun.file(options.agentPath).bytes()
  const initramfs = packCpio(await initramfsEntries(agent, unpacked.modulesDir))
  const vmlinux = await Bun.file(unpacked.vmlinux).bytes()
  const files = { vmlinux: proveBytes(vmlinux), initramfs: proveBytes(initramfs) }
  const hash = kernelHash(files, unpacked.version)
  const dir = join(options.cacheDir, "kernels", hash)
  const manifest: KernelManifest = {
    kind: "kernel",
    hash,
    version: unpacked.version,
    package: unpacked.name,
    packageVersion: unpacked.packageVersion,
    files,
  }
  const commit = () =>
    commitDirectory(dir, async (beside) => {
      // Copied, not linked: damage to the artifact must not damage the package that a new one is built from.
      await commitCopy(unpacked.vmlinux, join(beside, "vmlinux"))
      await Bun.write(join(beside, "initramfs"), initramfs)
      await Bun.write(join(beside, "manifest.json"), textOf(manifest))
    })
  await commit()
  if (!(await isWholeKernel(dir, manifest))) {
    options.report({ step: "kernel", message: `${dir} is damaged: make it again` })
    await discard(dir)
    await commit()
  }
  return { version: unpacked.version, hash, dir, modulesDir: unpacked.modulesDir }
}

function textOf(manifest: KernelManifest): string {
  return `${JSON.stringify(manifest, null, 2)}\n`
}

async function isWholeKernel(dir: string, manifest: KernelManifest): Promise<boolean> {
  const manifestFile = Bun.file(join(dir, "manifest.json"))
  if (!(await manifestFile.exists()) || (await manifestFile.text()) !== textOf(manifest)) return false
  for (const name of kernelFiles)
    if (!(await isWhole(join(dir, name), manifest.files[name], "digests"))) return false
  return true
}

function proveBytes(bytes: Uint8Array): { size: number; sha256: string } {
  return { size: bytes.length, sha256: new Bun.CryptoHasher("sha256").update(bytes).digest("hex") }
}

/** Left uncompressed: an emulated guest takes longer to unpack it than the host takes to read three more megabytes. */
async function initramfsEntries(agent: Uint8Array, modulesDir: string): Promise<CpioEntry[]> {
  const known = await readModules(modulesDir)
  const modules = await Promise.all(
    loadOrder(known, initramfsModules).map(async (path) => ({
      name: `${moduleName(path)}.ko`,
      content: await moduleContent(join(modulesDir, path)),
    })),
  )
  return [
    { kind: "directory", path: "dev", mode: 0o755 },
    { kind: "character-device", path: "dev/console", mode: 0o600, major: 5, minor: 1 },
    { kind: "directory", path: "modules", mode: 0o755 },
    ...modules.map(({ name, content }) => ({
      kind: "file" as const,
      path: `modules/${name}`,
      mode: 0o644,
      content,
    })),
    {
      kind: "file",
      path: "modules/order",
      mode: 0o644,
      content: Buffer.from(modules.map(({ name }) => `${name}\n`).join("")),
    },
    { kind: "file", path: "init", mode: 0o755, content: agent },
  ]
}

/** Left uncompressed, because the agent passes it to the kernel unchanged. */
async function moduleContent(path: string): Promise<Uint8Array> {
  const bytes = await Bun.file(path).bytes()
  const compression = compressionOf(bytes)
  return compression === undefined ? bytes : await decompress(bytes, compression)
}
