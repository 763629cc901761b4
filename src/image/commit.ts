/**
 * Commits artifacts: they are built beside their final place, synced, renamed. So a path under its final name is always
 * complete, a file never changes in place (a running machine may have mapped it), and the loser of two racing
 * builds takes the winner's result. Knows nothing about the contents.
 */
import { statSync } from "node:fs"
import { chmod, link, mkdir, mkdtemp, readdir, readFile, rename, rm } from "node:fs/promises"
import { basename, dirname, join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { renameDurably, syncPath } from "../lib/durable.ts"
import { errorCodeOf } from "../lib/error-code.ts"
import { exists } from "../lib/missing-files.ts"
import { runProgram } from "../lib/program.ts"

const besidePrefix = ".making-"
/** No build takes this long, so an older directory was left by a build that was killed. */
const abandonedAfterMs = 6 * 60 * 60 * 1000
const copyDeadlineMs = 300_000
const umountDeadlineMs = 10_000

/** Creates the directory with `build` unless a whole one exists, and returns its manifest. Replaces a damaged one. */
export async function commitWhole<Manifest>(
  target: string,
  options: {
    build: (directory: string) => Promise<void>
    /** Returns undefined unless the content matches the manifest. */
    read: (directory: string) => Promise<Manifest | undefined>
    onDamaged: (message: string) => void
  },
): Promise<Manifest> {
  await commitDirectory(target, options.build)
  let manifest = await options.read(target)
  if (manifest === undefined) {
    options.onDamaged(`${target} is damaged: build it again`)
    await discard(target)
    await commitDirectory(target, options.build)
    manifest = await options.read(target)
  }
  if (manifest !== undefined) return manifest
  throw new AppError("unavailable", `${target} changed after it was written`, {
    hint: "the host's disk may be failing; see the host's kernel log",
  })
}

/** Creates the directory with `build`, unless it exists. */
export async function commitDirectory(
  target: string,
  build: (directory: string) => Promise<void>,
): Promise<void> {
  if (await exists(target)) return
  await makeParent(target)
  await sweepAbandoned(dirname(target))

  await using beside = await makeBeside(target)

  // Programs run by a build may work as other users; no content is secret.
  await chmod(beside.path, 0o755)
  await build(beside.path)
  for (const entry of await readdir(beside.path, { withFileTypes: true })) {
    if (!entry.isFile()) continue
    await chmod(join(beside.path, entry.name), 0o444)
    await syncPath(join(beside.path, entry.name))
  }
  try {
    await renameDurably(beside.path, target)
  } catch (error) {
    if (!isAlreadyThere(error)) throw error
  }
}

/**
 * Makes `target` the same file as `source`: by a hard link, or by a copy if that is impossible. An existing target
 * stays.
 */
export async function commitLink(source: string, target: string): Promise<void> {
  if (await exists(target)) return
  await makeParent(target)
  try {
    await link(source, target)
  } catch (error) {
    if (isAlreadyThere(error)) return
    await commitCopy(source, target)
  }
  await syncPath(dirname(target))
}

/** Replaces `target` with a link to `source`, or with a copy. A machine that has the old file open keeps it. */
export async function replaceByLink(source: string, target: string): Promise<void> {
  await using beside = await makeBeside(target)

  await commitLink(source, join(beside.path, "link"))
  await renameDurably(join(beside.path, "link"), target)
}

/** Removes a directory atomically, since others may be reading it. */
export async function discard(target: string): Promise<void> {
  const beside = await mkdtemp(besidePath(target))
  await rename(target, join(beside, basename(target)))
  await rm(beside, { recursive: true, force: true })
}

/** Replaces a small file atomically. */
export async function commitText(target: string, text: string): Promise<void> {
  await makeParent(target)
  await using beside = await makeBeside(target)

  const file = join(beside.path, "text")
  await Bun.write(file, text)
  await chmod(file, 0o644)
  await renameDurably(file, target)
}

/** A separate file with the same content: damage to one leaves the other intact. */
export async function commitCopy(source: string, target: string): Promise<void> {
  await using beside = await makeBeside(target)

  const copy = join(beside.path, "copy")
  await runProgram(["cp", "--reflink=auto", "--sparse=always", "--preserve=mode", source, copy], {
    deadlineMs: copyDeadlineMs,
  })
  await renameDurably(copy, target)
}

async function makeParent(target: string): Promise<void> {
  try {
    await mkdir(dirname(target), { recursive: true })
  } catch (cause) {
    throw new AppError("forbidden", `cannot create the directory ${dirname(target)}`, {
      hint: "run it as root, or choose another directory",
      cause,
    })
  }
}

async function sweepAbandoned(directory: string): Promise<void> {
  for (const name of await readdir(directory)) {
    if (!name.startsWith(besidePrefix)) continue
    const path = join(directory, name)
    // Another build may finish and remove its directory at any moment.
    const mtimeMs = statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Number.POSITIVE_INFINITY
    if (Date.now() - mtimeMs <= abandonedAfterMs) continue
    await detachMounts(path)
    await rm(path, { recursive: true, force: true })
  }
}

/** Detaches the mounts that a killed mmdebstrap has left below a directory: removing it would go into them. */
async function detachMounts(directory: string): Promise<void> {
  const lines = (await readFile("/proc/self/mounts", "utf8")).split("\n")
  const below = lines
    .map((line) => line.split(" ")[1] ?? "")
    .filter((path) => path.startsWith(`${directory}/`))
  for (const path of below.reverse())
    await runProgram(["umount", "--lazy", path], { deadlineMs: umountDeadlineMs })
}

/** Makes a directory beside the target, which is removed with what is still in it. */
async function makeBeside(target: string): Promise<AsyncDisposable & { path: string }> {
  const path = await mkdtemp(besidePath(target))
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) }
}

function besidePath(target: string): string {
  return join(dirname(target), `${besidePrefix}${basename(target)}-`)
}

function isAlreadyThere(error: unknown): boolean {
  return ["EEXIST", "ENOTEMPTY"].includes(errorCodeOf(error) ?? "")
}
