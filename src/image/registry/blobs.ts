/**
 * Layers and configurations that were fetched, kept so that images which share them fetch them once. They are kept
 * apart by registry: a manifest proves a right to its layers only in the registry that has them.
 *
 *     DATA/registry/blobs/ORIGIN/HEX
 */

import { createHash } from "node:crypto"
import { createReadStream, type Stats } from "node:fs"
import { chmod, chown, link, lstat, mkdir, readdir, rm, stat, utimes } from "node:fs/promises"
import { join } from "node:path"
import { syncPath } from "../../lib/durable.ts"
import { errorCodeOf } from "../../lib/error-code.ts"
import { exists } from "../../lib/missing-files.ts"
import { hexOf } from "../oci-manifest.ts"
import { refusal } from "../refusal.ts"

const ownUid = process.getuid?.() ?? 0

export class Blobs {
  readonly #directory: string

  constructor(directory: string) {
    this.#directory = directory
  }

  /** Makes those that are here appear in the directory, where they cannot be written to; returns their inodes. */
  async linkInto(
    origin: string,
    digests: readonly string[],
    directory: string,
  ): Promise<Map<string, number>> {
    const found = new Map<string, number>()
    for (const digest of digests) {
      const hex = hexOf(digest)
      const kept = join(this.#shelf(origin), hex)
      try {
        await link(kept, join(directory, hex))
        await utimes(kept, new Date(), new Date())
        found.set(digest, (await lstat(join(directory, hex))).ino)
      } catch (error) {
        if (errorCodeOf(error) !== "ENOENT") throw error
      }
    }
    return found
  }

  /**
   * Checks files that an unprivileged program has written, keeps them, and makes them appear in `into`. The program
   * has ended: nobody has them open for writing. `linked` are those that `linkInto` has put there before. An eviction
   * meanwhile takes nothing away.
   */
  async takeFrom(
    directory: string,
    origin: string,
    wanted: readonly { digest: string; size?: number }[],
    { linked, into }: { linked: ReadonlyMap<string, number>; into: string },
  ): Promise<void> {
    const shelf = this.#shelf(origin)
    await mkdir(shelf, { recursive: true, mode: 0o700 })
    for (const { digest, size } of wanted) {
      const hex = hexOf(digest)
      const file = join(directory, hex)
      const target = join(into, hex)
      // A layer may be there twice.
      if (await exists(target)) continue
      // A link would make root change a file that the program cannot.
      const about = await lstat(file).catch((error: unknown) => {
        if (errorCodeOf(error) !== "ENOENT") throw error
        throw refusal("missing_blob", `the blob ${digest} was not fetched`)
      })
      // The number of an inode may be given again, but only to a file of the program's.
      const isKept = about.isFile() && about.uid === ownUid && about.ino === linked.get(digest)
      if (!isKept && (await linkIfThere(join(shelf, hex), target))) continue
      if (!isKept) await check(file, about, { digest, size })
      await link(file, target)
      await link(file, join(shelf, hex)).catch((error: unknown) => {
        if (errorCodeOf(error) !== "EEXIST") throw error
      })
    }
    await syncPath(shelf)
  }

  /** Evicts the least recently used above the limit; returns how many. */
  async evict(bytesMax: number): Promise<number> {
    const files: { path: string; size: number; usedMs: number }[] = []
    if (!(await exists(this.#directory))) return 0
    for (const shelf of await readdir(this.#directory)) {
      for (const name of await readdir(join(this.#directory, shelf))) {
        const path = join(this.#directory, shelf, name)
        const { size, mtimeMs } = await stat(path)
        files.push({ path, size, usedMs: mtimeMs })
      }
    }
    let total = files.reduce((sum, { size }) => sum + size, 0)
    let evicted = 0
    for (const { path, size } of files.sort((one, other) => one.usedMs - other.usedMs)) {
      if (total <= bytesMax) break
      await rm(path, { force: true })
      total -= size
      evicted++
    }
    return evicted
  }

  #shelf(origin: string): string {
    return join(this.#directory, createHash("sha256").update(origin).digest("hex").slice(0, 32))
  }
}

async function check(
  file: string,
  about: Stats,
  { digest, size }: { digest: string; size: number | undefined },
): Promise<void> {
  if (!about.isFile() || about.nlink !== 1) throw refusal("missing_blob", `the blob ${digest} is not a file`)
  await chown(file, ownUid, process.getgid?.() ?? 0)
  await chmod(file, 0o444)
  if (size !== undefined && about.size !== size)
    throw refusal("wrong_size", `the blob ${digest} has ${about.size} bytes and should have ${size}`)
  if ((await hashOf(file)) !== hexOf(digest))
    throw refusal("wrong_digest", `the blob ${digest} has another digest`)
  await syncPath(file)
}

async function linkIfThere(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to)
    return true
  } catch (error) {
    if (errorCodeOf(error) !== "ENOENT") throw error
    return false
  }
}

async function hashOf(path: string): Promise<string> {
  const hash = createHash("sha256")
  for await (const chunk of createReadStream(path, { highWaterMark: 1024 * 1024 })) hash.update(chunk)
  return hash.digest("hex")
}
