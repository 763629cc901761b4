/**
 * Images that are built only at need, for tests: from the cache, with their template, which takes a minute to make.
 * Both are kept by their content, so that only the first run waits for them.
 */

import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, statSync } from "node:fs"
import { basename, join } from "node:path"
import { installImage } from "../../src/image/install.ts"
import { buildKernel } from "../../src/image/kernel.ts"
import type { Recipe } from "../../src/image/recipe.ts"
import { buildRecipe, cachedDirectory } from "../../src/image/rootfs.ts"
import { binary, cacheDir, type Installation } from "./installation.ts"

const isAsked = process.env["BHATTI_TEST_LONG"] === "1"
const keptMs = 86_400_000
const shelf = join(cacheDir, "templates-of-tests")

export class HostImage {
  readonly #recipe: Recipe
  #kept = ""

  constructor(recipe: Recipe) {
    this.#recipe = recipe
  }

  /** Returns whether a test may use it: its template is kept, or this is the long run, which makes it. */
  async isAtHand(): Promise<boolean> {
    const kernel = await this.#kernel()
    const image = cachedDirectory({ recipe: this.#recipe, cacheDir, kernel })
    this.#kept = join(shelf, `${basename(image)}-${kernel.hash}`)
    return isAsked || (existsSync(image) && existsSync(this.#kept))
  }

  /** Into a data directory whose daemon has made no template of it. */
  async install({ dataDir }: Pick<Installation, "dataDir">): Promise<void> {
    const kernel = await this.#kernel()
    await installImage(dataDir, await buildRecipe({ recipe: this.#recipe, cacheDir, kernel, report }))
    if (existsSync(this.#kept)) copy(join(this.#kept, "."), join(dataDir, "templates"))
  }

  /** Keeps the one template that was made since `before`, a list of those in the data directory. */
  keep({ dataDir }: Pick<Installation, "dataDir">, before: readonly string[]): void {
    const made = templatesIn(dataDir).filter((name) => !before.includes(name))
    const [name] = made
    if (made.length !== 1 || name === undefined || existsSync(this.#kept)) return
    mkdirSync(shelf, { recursive: true })
    removeOld()
    const beside = mkdtempSync(join(shelf, "tmp-"))
    copy(join(dataDir, "templates", name), beside)
    try {
      renameSync(beside, this.#kept)
    } catch (error) {
      // Another run was first.
      rmSync(beside, { recursive: true, force: true })
      if (!existsSync(this.#kept)) throw error
    }
  }

  #kernel() {
    return buildKernel({ cacheDir, agentPath: join(binary, "../lohar"), report })
  }
}

export function templatesIn(dataDir: string): string[] {
  return readdirSync(join(dataDir, "templates"))
}

function report(): void {}

/** Each is of hundreds of megabytes, and another agent or recipe needs another one. */
function removeOld(): void {
  for (const name of readdirSync(shelf)) {
    const path = join(shelf, name)
    const stat = statSync(path, { throwIfNoEntry: false })
    if (stat && Date.now() - stat.mtimeMs > keptMs) rmSync(path, { recursive: true, force: true })
  }
}

/** With holes, which memory has many of. */
function copy(from: string, to: string): void {
  const { exitCode, stderr } = Bun.spawnSync(["cp", "-a", "--sparse=always", "--reflink=auto", from, to])
  if (exitCode !== 0) throw new Error(`cp ${from}: ${stderr}`)
}
