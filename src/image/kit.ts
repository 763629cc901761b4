/**
 * Builds the kit disk of a kernel: its modules and Debian's programs for guests whose image lacks them. The result is
 * cached under a digest of its inputs, versions of the packages included, and equal inputs give equal bytes.
 */
import { createHash } from "node:crypto"
import { chmod, mkdir, rm } from "node:fs/promises"
import { join } from "node:path"
import { z } from "zod"
import { fillKit, kitMib, kitPackages } from "../../images/kit.ts"
import { exists } from "../lib/missing-files.ts"
import { parseJson } from "../lib/parse-json.ts"
import { runProgram } from "../lib/program.ts"
import { commitText, commitWhole } from "./commit.ts"
import type { BuiltKernel } from "./kernel.ts"
import { hashLength, KitManifest, kitHash } from "./manifest.ts"
import type { Report } from "./report.ts"
import { diskDigest } from "./sparse.ts"
import { verifyDisk } from "./verified-disk.ts"

const suite = "bookworm"
const queryDeadlineMs = 120_000
const buildDeadlineMs = 600_000
const Versions = z.record(z.string(), z.string())

export type BuiltKit = {
  hash: string
  /** The raw disk, with `manifest.json` beside it. */
  file: string
}

export async function buildKit(options: {
  cacheDir: string
  kernel: BuiltKernel
  report: Report
}): Promise<BuiltKit> {
  const { cacheDir, kernel } = options
  const shelf = join(cacheDir, "kits")
  const last = join(shelf, "last.json")
  const remembered = (await exists(last)) ? Versions.parse(await Bun.file(last).json()) : undefined
  const versions = await packageVersions(remembered)
  const inputs = JSON.stringify([suite, kitPackages, versions, kernel.modulesDir, kitHook, kitMib])
  const key = createHash("sha256").update(inputs).digest("hex").slice(0, hashLength)
  const directory = join(shelf, key)
  const manifest = await commitWhole(directory, {
    build: (beside) => buildInto(beside, { ...options, versions }),
    read: wholeManifest,
    onDamaged: (message) => options.report({ step: "kit", message }),
  })
  if (!Bun.deepEquals(remembered, versions)) await commitText(last, `${JSON.stringify(versions)}\n`)
  return { hash: manifest.hash, file: join(directory, "disk.raw") }
}

async function packageVersions(
  remembered: Record<string, string> | undefined,
): Promise<Record<string, string>> {
  const text = await runProgram(["apt-cache", "policy", ...kitPackages, "libc6", "libssl3"], {
    deadlineMs: queryDeadlineMs,
  })
  return versionsToUse(text.toString(), remembered)
}

/**
 * Hosts without package lists, whose apt still names the versions of what is installed, go on with those of the last
 * build.
 */
export function versionsToUse(
  policy: string,
  remembered: Record<string, string> | undefined,
): Record<string, string> {
  const versions = parsePolicy(policy)
  const hasLists = kitPackages.every((name) => versions[name] !== undefined)
  return hasLists || remembered === undefined ? versions : remembered
}

/** Each package's version that apt would install. */
export function parsePolicy(text: string): Record<string, string> {
  const stanzas = text.matchAll(/^(\S+):\n(?: .*\n)*? +Candidate: (?!\(none\))(\S+)$/gm)
  return Object.fromEntries([...stanzas].map(([, name = "", version = ""]) => [name, version]))
}

/** Returns undefined unless the disk beside the manifest matches it. */
async function wholeManifest(directory: string): Promise<KitManifest | undefined> {
  const file = Bun.file(join(directory, "manifest.json"))
  const text = (await file.exists()) ? await file.text() : ""
  const manifest = KitManifest.safeParse(parseJson(text)).data
  const isWhole =
    manifest &&
    manifest.hash === kitHash(manifest) &&
    (await verifyDisk(join(directory, "disk.raw"), manifest.digest))
  return isWhole ? manifest : undefined
}

async function buildInto(
  beside: string,
  { kernel, versions, report }: { kernel: BuiltKernel; versions: Record<string, string>; report: Report },
): Promise<void> {
  report({ step: "kit", message: `unpack ${kitPackages.length} packages of Debian ${suite}` })
  await using undo = new AsyncDisposableStack()
  const scratch = join(beside, "scratch")
  const tree = join(scratch, "tree")
  await mkdir(tree, { recursive: true })
  undo.defer(() => rm(scratch, { recursive: true, force: true }))
  const file = join(beside, "disk.raw")
  await Bun.write(file, "")
  // Without root, the hook runs as another user id, which must be able to write the disk.
  if (process.getuid?.() !== 0) await chmod(file, 0o666)
  const hook = join(scratch, "hook")
  await Bun.write(hook, kitHook)
  await chmod(hook, 0o755)
  await runProgram(
    [
      "mmdebstrap",
      // Unpacks the packages and runs none of their scripts.
      "--variant=extract",
      "--format=null",
      "--skip=cleanup",
      '--aptopt=Acquire::Languages "none"',
      `--include=${kitPackages.join(",")}`,
      `--extract-hook=${hook}`,
      suite,
      "/dev/null",
    ],
    {
      deadlineMs: buildDeadlineMs,
      env: {
        TMPDIR: scratch,
        BHATTI_MODULES: kernel.modulesDir,
        BHATTI_KERNEL_VERSION: kernel.version,
        BHATTI_TREE: tree,
        BHATTI_DISK: file,
      },
    },
  )
  const digest = await diskDigest(file)
  const manifest: KitManifest = {
    kind: "kit",
    hash: kitHash({ digest, kernelVersion: kernel.version, packages: versions }),
    sizeMib: kitMib,
    digest,
    kernelVersion: kernel.version,
    packages: versions,
  }
  await Bun.write(join(beside, "manifest.json"), `${JSON.stringify(manifest, null, 2)}\n`)
}

/** Any fixed values: they only keep the disk's bytes the same in each build. */
const buildTime = 1_700_000_000
const diskId = "6b697400-0000-4000-8000-000000000000"

/**
 * Makes the file system $2, of a fixed size, from the directory $1. Times of files are fixed too; those that only the
 * kernel sets are overwritten in the file system.
 */
export const makeKitDisk = `
export E2FSPROGS_FAKE_TIME=${buildTime}
find "$1" -exec touch --no-dereference --date=@${buildTime} {} +
truncate --size=${kitMib}M "$2"
mke2fs -q -F -t ext4 -O ^has_journal,^resize_inode -b 4096 -m 0 -N 2048 -L bhatti-kit -U ${diskId} \\
  -E hash_seed=${diskId},root_owner=0:0,lazy_itable_init=0 -d "$1" "$2"
count=$(find "$1" | wc -l)
for inode in 2 $(seq 11 $((count + 12))); do
  for time in atime ctime mtime crtime; do
    echo "set_inode_field <$inode> $time @${buildTime}"
    echo "set_inode_field <$inode> $time""_extra 0"
  done
done | debugfs -w -f - "$2" > /dev/null 2>&1
`

/**
 * mmdebstrap runs it with the tree's path as its argument, as root of its namespace. The kit is collected in memory,
 * where the order of a directory is that of its making.
 */
const kitHook = `#!/bin/sh
set -eu
umask 022
mount -t tmpfs -o mode=0755 tmpfs "$BHATTI_TREE"
set -- "$1" "$BHATTI_TREE" "$BHATTI_MODULES" "$BHATTI_KERNEL_VERSION"
${fillKit}
set -- "$BHATTI_TREE" "$BHATTI_DISK"
${makeKitDisk}
umount "$BHATTI_TREE"
`
