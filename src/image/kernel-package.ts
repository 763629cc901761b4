/**
 * Debian's cloud kernel package, downloaded and unpacked but never installed: which one is current, and from it the
 * bootable ELF file and a pruned module tree, kept in the cache under the package's version. Signatures are checked by
 * apt. Needs root only when apt has no package lists yet.
 */
import { createHash } from "node:crypto"
import { chown, cp, mkdir, mkdtemp, readdir, rm, symlink } from "node:fs/promises"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { z } from "zod"
import { imageModules, initramfsModules } from "../../images/modules.ts"
import { exists } from "../lib/missing-files.ts"
import { runProgram } from "../lib/program.ts"
import { extractVmlinux } from "./bzimage.ts"
import { commitDirectory, commitText, discard } from "./commit.ts"
import { loadOrder, type Modules, parseModulesBuiltIn, parseModulesDep } from "./modules.ts"
import type { Report } from "./report.ts"
import { isWholeTree, recordTree } from "./verified-tree.ts"

const metaPackage = "linux-image-cloud-amd64"
/** `apt-cache` reads all package lists, which takes half a minute on a busy host. */
const queryDeadlineMs = 120_000
const updateDeadlineMs = 180_000
const downloadDeadlineMs = 300_000
const unpackDeadlineMs = 120_000

export type KernelPackage = {
  /** As `uname -r` will report it. */
  version: string
  name: string
  packageVersion: string
  vmlinux: string
  /** Becomes /lib/modules/VERSION: pruned, with the files that modprobe needs. */
  modulesDir: string
}

const PackageId = z.strictObject({ name: z.string(), packageVersion: z.string() })
type PackageId = z.infer<typeof PackageId>

export async function fetchKernelPackage(options: {
  cacheDir: string
  report: Report
}): Promise<KernelPackage> {
  if (process.arch !== "x64")
    throw new AppError("unavailable", `no guest kernel for ${process.arch}, only for amd64`)
  const last = join(options.cacheDir, "kernel-packages", "last.json")
  // Machines without package lists (many containers) continue with the cached package and need no network.
  const id = (await lookUp()) ?? (await readLast(last)) ?? (await lookUpAfterUpdate(options.report))
  try {
    return await unpackedPackage({ ...options, id, last })
  } catch (error) {
    // Old package lists name versions that the mirror has already replaced.
    const newer = await lookUpAfterUpdate(options.report)
    if (newer.packageVersion === id.packageVersion) throw error
    return await unpackedPackage({ ...options, id: newer, last })
  }
}

async function unpackedPackage(options: {
  id: PackageId
  /** Remembers the package for later runs without package lists. */
  last: string
  cacheDir: string
  report: Report
}): Promise<KernelPackage> {
  const { id } = options
  const version = id.name.replace(/^linux-image-/, "")
  // A changed list of wanted modules produces another tree from the same package.
  const wishes = createHash("sha256")
    .update(JSON.stringify([initramfsModules, imageModules]))
    .digest("hex")
  const directory = join(
    options.cacheDir,
    "kernel-packages",
    `${id.name}_${id.packageVersion}_${wishes.slice(0, 8)}`,
  )
  const commit = () => commitDirectory(directory, (beside) => unpackInto(beside, { ...options, version }))
  await commit()
  if (!(await isWholeTree(directory))) {
    options.report({ step: "kernel", message: `${directory} is damaged: fetch it again` })
    await discard(directory)
    await commit()
  }
  // Another user's cache may be complete but unreadable.
  const remembered = await readLast(options.last)
  if (JSON.stringify(remembered) !== JSON.stringify(id))
    await commitText(options.last, `${JSON.stringify(id)}\n`)
  return {
    version,
    name: id.name,
    packageVersion: id.packageVersion,
    vmlinux: join(directory, "vmlinux"),
    modulesDir: join(directory, "modules"),
  }
}

async function unpackInto(
  beside: string,
  { id, version, report }: { id: PackageId; version: string; report: Report },
): Promise<void> {
  await using undo = new AsyncDisposableStack()
  const scratch = await aptDirectory()
  undo.defer(() => rm(scratch, { recursive: true, force: true }))

  report({ step: "kernel", message: `download ${id.name} ${id.packageVersion}` })
  const deb = await download(id, scratch)
  report({ step: "kernel", message: "unpack the kernel and its modules" })
  const unpacked = join(scratch, "unpacked")
  await runProgram(["dpkg-deb", "--extract", deb, unpacked], { deadlineMs: unpackDeadlineMs })
  await findModulesInLib(unpacked)
  const image = await Bun.file(join(unpacked, "boot", `vmlinuz-${version}`)).arrayBuffer()
  await Bun.write(join(beside, "vmlinux"), await extractVmlinux(Buffer.from(image)))
  await pruneModules({ unpacked, version, target: join(beside, "modules") })
  await recordTree(beside)
}

/** Since Debian 13 the package has its modules below usr/lib alone, where the host's depmod may not look for them. */
export async function findModulesInLib(unpacked: string): Promise<void> {
  if (!(await exists(join(unpacked, "lib")))) await symlink("usr/lib", join(unpacked, "lib"))
}

/** The package that the meta package points to, for example `Depends: linux-image-6.1.0-9-cloud-amd64 (= 6.1.27-1)`. */
export function parseMetaPackage(stanza: string): PackageId | undefined {
  const match = /^Depends:.*?\b(linux-image-\d\S*) \(= ([^)]+)\)/m.exec(stanza)
  return match?.[1] === undefined || match[2] === undefined
    ? undefined
    : { name: match[1], packageVersion: match[2] }
}

async function lookUp(): Promise<PackageId | undefined> {
  // Unlike `apt-cache show`, this does not fail for a name that apt has never heard of.
  const stanza = await runProgram(["apt-cache", "search", "--names-only", "--full", `^${metaPackage}$`], {
    deadlineMs: queryDeadlineMs,
  })
  return parseMetaPackage(stanza.toString())
}

async function lookUpAfterUpdate(report: Report): Promise<PackageId> {
  report({ step: "kernel", message: "update apt's package lists" })
  await runProgram(["apt-get", "update"], { deadlineMs: updateDeadlineMs })
  const found = await lookUp()
  if (found !== undefined) return found
  throw new AppError("unavailable", `apt knows no package ${metaPackage}`, {
    hint: "bhatti takes its guest kernel from Debian: add a Debian source to apt, then try again",
  })
}

async function readLast(path: string): Promise<PackageId | undefined> {
  return (await exists(path)) ? PackageId.parse(await Bun.file(path).json()) : undefined
}

async function download(id: PackageId, directory: string): Promise<string> {
  await runProgram(["apt-get", "download", `${id.name}=${id.packageVersion}`], {
    deadlineMs: downloadDeadlineMs,
    cwd: directory,
  })
  const deb = (await readdir(directory)).find((name) => name.endsWith(".deb"))
  if (deb === undefined) throw new AppError("unavailable", `apt downloaded no file for ${id.name}`)
  return join(directory, deb)
}

/** Creates a fresh directory that apt's own unprivileged user may write to; otherwise apt would download as root. */
async function aptDirectory(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "bhatti-kernel-"))
  if (process.getuid?.() === 0) {
    const uid = await runProgram(["id", "-u", "_apt"], { deadlineMs: queryDeadlineMs })
    await chown(directory, Number(uid.toString()), 0)
  }
  return directory
}

async function pruneModules(options: { unpacked: string; version: string; target: string }): Promise<void> {
  const { unpacked, version, target } = options
  const source = join(unpacked, "lib", "modules", version)
  await depmod(unpacked, version)
  const modules = await readModules(source)

  await using undo = new AsyncDisposableStack()
  const root = `${target}.root`
  undo.defer(() => rm(root, { recursive: true, force: true }))

  const tree = join(root, "lib", "modules", version)
  for (const path of loadOrder(modules, [...initramfsModules, ...imageModules])) {
    await mkdir(dirname(join(tree, path)), { recursive: true })
    await cp(join(source, path), join(tree, path))
  }
  for (const name of ["modules.order", "modules.builtin", "modules.builtin.modinfo"]) {
    if (await exists(join(source, name))) await cp(join(source, name), join(tree, name))
  }
  await depmod(root, version)
  await cp(tree, target, { recursive: true })
}

export async function readModules(directory: string): Promise<Modules> {
  const [dependencies, builtIn] = await Promise.all(
    ["modules.dep", "modules.builtin"].map((name) => Bun.file(join(directory, name)).text()),
  )
  return { dependencies: parseModulesDep(dependencies ?? ""), builtIn: parseModulesBuiltIn(builtIn ?? "") }
}

/** Writes modules.dep and its companions, which are normally created when a package is installed. */
async function depmod(root: string, version: string): Promise<void> {
  await runProgram(["depmod", "--basedir", root, version], { deadlineMs: unpackDeadlineMs })
}
