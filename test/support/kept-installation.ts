/**
 * Templates that installations of tests take over from each other, so that only the first with a build has to boot one.
 * They are copies: what a test does to its own harms no other. The daemon looks at fingerprints as ever, and makes its
 * own where none fits.
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
const unfinished = "tmp-"

/** `kind`: everything beyond the build that the template depends on, as the test knows it. */
export class KeptTemplates {
  readonly #shelf: string
  readonly #directory: string

  constructor(options: { cacheDir: string; build: string; kind: string }) {
    const hash = createHash("sha256").update(readFileSync(options.build)).update(options.kind)
    this.#shelf = join(options.cacheDir, "templates-of-tests")
    this.#directory = join(this.#shelf, hash.digest("hex").slice(0, 16))
  }

  /** Before the installation is initialised. */
  give(dataDir: string): void {
    if (!existsSync(this.#directory)) return
    const templates = join(dataDir, "templates")
    mkdirSync(templates, { mode: 0o700 })
    for (const id of readdirSync(this.#directory)) copy(join(this.#directory, id), join(templates, id))
  }

  /** Afterwards: keeps what it has made. */
  keep(dataDir: string): void {
    if (existsSync(this.#directory)) return
    mkdirSync(this.#shelf, { recursive: true })
    this.#removeOld()
    const beside = mkdtempSync(join(this.#shelf, unfinished))
    for (const id of readdirSync(join(dataDir, "templates")))
      if (!id.startsWith(unfinished)) copy(join(dataDir, "templates", id), join(beside, id))
    try {
      renameSync(beside, this.#directory)
    } catch (error) {
      // Another lane was first.
      rmSync(beside, { recursive: true })
      if (!existsSync(this.#directory)) throw error
    }
  }

  #removeOld(): void {
    for (const name of readdirSync(this.#shelf)) {
      const path = join(this.#shelf, name)
      const stat = statSync(path, { throwIfNoEntry: false })
      if (stat && Date.now() - stat.mtimeMs > keptMs) rmSync(path, { recursive: true, force: true })
    }
  }
}

/** With holes, which memory has many of. */
function copy(source: string, target: string): void {
  const { exitCode, stderr } = Bun.spawnSync([
    "cp",
    "-a",
    "--sparse=always",
    "--reflink=auto",
    source,
    target,
  ])
  if (exitCode !== 0) throw new Error(`cp ${source}: ${stderr}`)
}
