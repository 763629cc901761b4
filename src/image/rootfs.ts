/**
 * Builds an image's disk: a Debian tree by mmdebstrap, the kernel's modules, then one ext4 file by `mke2fs -d`.
 * Uses no loop device and no mount that outlives the build. The result is cached under a digest of its inputs.
 */
import { createHash } from "node:crypto"
import { chmod, mkdir, rm } from "node:fs/promises"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { codeInterpreter } from "../../images/code-interpreter.ts"
import { docker } from "../../images/docker.ts"
import { minimal } from "../../images/minimal.ts"
import { node } from "../../images/node.ts"
import { python } from "../../images/python.ts"
import { workspace } from "../../images/workspace.ts"
import { parseJson } from "../lib/parse-json.ts"
import { runProgram } from "../lib/program.ts"
import { commitWhole } from "./commit.ts"
import type { BuiltKernel } from "./kernel.ts"
import { hashLength, ImageManifest } from "./manifest.ts"
import { fetchNpmPackages } from "./npm-packages.ts"
import type { Recipe } from "./recipe.ts"
import type { Report } from "./report.ts"
import { diskDigest } from "./sparse.ts"
import { verifyDisk } from "./verified-disk.ts"

const recipes: readonly Recipe[] = [workspace, minimal, node, python, docker, codeInterpreter]
/** Names of the images that can be built here. */
export const recipeNames: readonly string[] = recipes.map(({ name }) => name)
/** The same, with what users see of them. */
export const recipeSummaries: readonly Pick<Recipe, "name" | "summary">[] = recipes.map(
  ({ name, summary }) => ({ name, summary }),
)
const buildDeadlineMs = 900_000

export type BuiltImage = {
  name: string
  hash: string
  /** The raw disk, with `manifest.json` beside it. */
  file: string
  sizeMib: number
}

/** Builds the image of a known recipe, by its name. */
export async function buildImage(options: Omit<Build, "recipe"> & { name: string }): Promise<BuiltImage> {
  const recipe = recipes.find(({ name }) => name === options.name)
  if (recipe === undefined) {
    throw new AppError("not_found", `no recipe for an image named "${options.name}"`, {
      hint: `images that can be built: ${recipeNames.join(", ")}`,
    })
  }
  return buildRecipe({ ...options, recipe })
}

type Build = { recipe: Recipe; cacheDir: string; kernel: BuiltKernel; report: Report }

export async function buildRecipe(options: Build): Promise<BuiltImage> {
  const directory = cachedDirectory(options)
  const manifest = await commitWhole(directory, {
    build: (beside) => buildInto(beside, options),
    read: wholeManifest,
    onDamaged: (message) => options.report({ step: "image", message }),
  })
  const { hash, name, sizeMib } = manifest
  return { name, hash, sizeMib, file: join(directory, "disk.raw") }
}

/** The place of its build in the cache, by what goes into it. */
export function cachedDirectory({ recipe, kernel, cacheDir }: Omit<Build, "report">): string {
  const { summary: _summary, ...content } = recipe
  const inputs = JSON.stringify([content, kernel.modulesDir, customizeHook(recipe), diskHook(recipe)])
  const key = createHash("sha256").update(inputs).digest("hex").slice(0, hashLength)
  return join(cacheDir, "images", `${recipe.name}-${key}`)
}

/** Returns undefined unless the disk beside the manifest matches it. */
async function wholeManifest(directory: string): Promise<ImageManifest | undefined> {
  const file = Bun.file(join(directory, "manifest.json"))
  const text = (await file.exists()) ? await file.text() : ""
  const manifest = ImageManifest.safeParse(parseJson(text)).data
  const isWhole = manifest && (await verifyDisk(join(directory, "disk.raw"), manifest.digest))
  return isWhole ? manifest : undefined
}

async function buildInto(
  beside: string,
  options: { recipe: Recipe; kernel: BuiltKernel; report: Report },
): Promise<void> {
  const { recipe } = options
  const npmPackagesDir = join(beside, "npm-packages")
  await fetchNpmPackages(recipe.npmPackages ?? [], npmPackagesDir, options.report)
  await buildDisk({ ...options, directory: beside, npmPackagesDir })
  await rm(npmPackagesDir, { recursive: true, force: true })
  const file = join(beside, "disk.raw")
  options.report({ step: "image", message: "compute its digest" })
  const digest = await diskDigest(file)
  const manifest: ImageManifest = {
    kind: "image",
    hash: digest.slice(0, hashLength),
    name: recipe.name,
    sizeMib: recipe.sizeMib,
    digest,
    kernelVersion: options.kernel.version,
    ...(recipe.programs && { programs: recipe.programs }),
    ...(recipe.services && { services: recipe.services }),
    ...(recipe.initSystem && { initSystem: true }),
  }
  await Bun.write(join(beside, "manifest.json"), `${JSON.stringify(manifest, null, 2)}\n`)
}

async function buildDisk(options: {
  recipe: Recipe
  directory: string
  npmPackagesDir: string
  kernel: BuiltKernel
  report: Report
}): Promise<void> {
  const { recipe, directory, kernel } = options
  await using undo = new AsyncDisposableStack()
  const scratch = join(directory, "scratch")
  const tree = join(scratch, "tree")
  await mkdir(tree, { recursive: true })
  undo.defer(() => rm(scratch, { recursive: true, force: true }))
  const file = join(directory, "disk.raw")
  await Bun.write(file, "")
  // Without root, the hooks run as another user id, which must be able to write the disk.
  if (process.getuid?.() !== 0) await chmod(file, 0o666)

  const customize = join(scratch, "customize")
  const disk = join(scratch, "disk")
  await Bun.write(customize, customizeHook(recipe))
  await Bun.write(disk, diskHook(recipe))
  await chmod(customize, 0o755)
  await chmod(disk, 0o755)
  options.report({
    step: "image",
    message: `install Debian ${recipe.suite} and ${recipe.packages.length} packages`,
  })
  await runProgram(
    [
      "mmdebstrap",
      "--variant=minbase",
      // The tree is thrown away, since the last hook has made the disk from it; so no cleaning is needed either.
      "--format=null",
      "--skip=cleanup",
      "--dpkgopt=force-unsafe-io",
      '--aptopt=Acquire::Languages "none"',
      `--include=${recipe.packages.join(",")}`,
      `--customize-hook=${customize}`,
      `--customize-hook=${disk}`,
      recipe.suite,
      "/dev/null",
    ],
    {
      deadlineMs: buildDeadlineMs,
      env: {
        TMPDIR: scratch,
        BHATTI_NPM_PACKAGES: options.npmPackagesDir,
        BHATTI_MODULES: kernel.modulesDir,
        BHATTI_KERNEL_VERSION: kernel.version,
        BHATTI_TREE: tree,
        BHATTI_DISK: file,
      },
    },
  )
}

/** mmdebstrap runs hooks with the tree's path as their argument, as root of its namespace. */
function customizeHook(recipe: Recipe): string {
  return `#!/bin/sh
set -eu
mkdir -p "$1/usr/lib/modules"
cp -R "$BHATTI_MODULES" "$1/usr/lib/modules/$BHATTI_KERNEL_VERSION"
${recipe.customize}`
}

/**
 * - The bind mount hides /proc, /sys and /dev, which mmdebstrap has mounted into the tree.
 * - /tmp is hidden and not emptied: apt's configuration for this tree is in there, and every apt that mmdebstrap starts
 *   without it works on the host.
 * - \`^resize_inode\` is not set and the default reserve stays: disks are grown in the running guest.
 * - Inode tables count as zeroed, being holes, so no guest kernel writes 128 MiB of zeros into its overlay.
 * - A small journal, since every sandbox's overlay stores what passes through it; below 32 MiB one transaction cannot
 *   hold what growing the filesystem writes. No blocks reserved for root.
 */
function diskHook(recipe: Recipe): string {
  return `#!/bin/sh
set -eu
mount --bind "$1" "$BHATTI_TREE"
mount -t tmpfs -o mode=1777 tmpfs "$BHATTI_TREE/tmp"
truncate --size=${recipe.sizeMib}M "$BHATTI_DISK"
mke2fs -q -F -t ext4 -b 4096 -m 0 -J size=32 -L bhatti -E lazy_itable_init=0,lazy_journal_init=0 -d "$BHATTI_TREE" "$BHATTI_DISK"
umount --recursive "$BHATTI_TREE"
`
}
