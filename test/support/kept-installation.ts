/**
 * An installation of tests hands kernel, image and template over to the next ones with the same build, so that only
 * the first has to run `bhatti init`. Kernel and image are links, as into the cache; templates are copies: a test that
 * damages its own harms no other. The daemon checks digests and fingerprints as ever, and makes its own template where
 * none fits.
 */

import { createHash } from "node:crypto"
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
} from "node:fs"
import { join } from "node:path"

const keptMs = 86_400_000
const keptAtMost = 12
const unfinished = "tmp-"
const linked = ["kernels", "kits", "images"]

/** `kind` is everything beyond the build that the template depends on, as the test knows it. */
export class KeptInstallation {
  readonly #shelf: string
  readonly #directory: string

  constructor(options: { cacheDir: string; build: string; kind: string }) {
    const hash = createHash("sha256").update(readFileSync(options.build)).update(options.kind)
    this.#shelf = join(options.cacheDir, "installations-of-tests")
    this.#directory = join(this.#shelf, hash.digest("hex").slice(0, 16))
  }

  /** Into an empty data directory. False: `bhatti init` has to do what is missing. */
  give(dataDir: string): boolean {
    if (!existsSync(this.#directory)) return false
    copy(this.#directory, dataDir, "templates")
    return linked.every((name) => link(this.#directory, dataDir, name))
  }

  /** Keeps what `bhatti init` has made. */
  keep(dataDir: string): void {
    if (existsSync(this.#directory)) return
    mkdirSync(this.#shelf, { recursive: true })
    this.#removeOld()
    const beside = mkdtempSync(join(this.#shelf, unfinished))
    copy(dataDir, beside, "templates")
    try {
      if (linked.every((name) => link(dataDir, beside, name))) renameSync(beside, this.#directory)
    } catch (error) {
      // Another lane was first.
      if (!existsSync(this.#directory)) throw error
    } finally {
      rmSync(beside, { recursive: true, force: true })
    }
  }

  /** Each build that is tested leaves some, of half a gigabyte each. */
  #removeOld(): void {
    const kept = readdirSync(this.#shelf)
      .map((name) => join(this.#shelf, name))
      .map((path) => ({ path, madeMs: statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0 }))
      .toSorted((one, other) => other.madeMs - one.madeMs)
    for (const [index, { path, madeMs }] of kept.entries())
      if (index >= keptAtMost || Date.now() - madeMs > keptMs) rmSync(path, { recursive: true, force: true })
  }
}

/** With holes, which memory has many of. */
function copy(from: string, to: string, name: string): void {
  const options = ["-a", "--sparse=always", "--reflink=auto"]
  const { exitCode, stderr } = Bun.spawnSync(["cp", ...options, join(from, name), to])
  if (exitCode !== 0) throw new Error(`cp ${join(from, name)}: ${stderr}`)
}

/** False on another file system, where the copies would be of gigabytes; then nothing of it is there. */
function link(from: string, to: string, name: string): boolean {
  const target = join(to, name)
  const isLinked = Bun.spawnSync(["cp", "-a", "--link", join(from, name), target]).exitCode === 0
  if (!isLinked) rmSync(target, { recursive: true, force: true })
  return isLinked
}
