/**
 * The cache of kernels and images, shared by all data directories of a host. Entries unused for a month are
 * evicted.
 */

import { readdir, rm, stat, utimes } from "node:fs/promises"
import { join } from "node:path"
import { exists } from "../lib/missing-files.ts"

const keptMs = 30 * 86_400_000
const shelves = ["kernel-packages", "kernels", "kits", "images"]

/** `used` lists paths in the cache that were just requested. Everything can be built again, so nothing must be kept. */
export async function tendCache(
  cacheDir: string,
  options: { used: readonly string[]; nowMs: number },
): Promise<void> {
  const { used, nowMs } = options
  for (const shelf of shelves.map((name) => join(cacheDir, name))) {
    if (!(await exists(shelf))) continue
    for (const entry of await readdir(shelf, { withFileTypes: true })) {
      const path = join(shelf, entry.name)
      const { uid, mtimeMs } = await stat(path)
      // Each user tends its own cache.
      if (!entry.isDirectory() || uid !== process.getuid?.()) continue
      if (used.some((one) => `${one}/`.startsWith(`${path}/`))) await utimes(path, nowMs / 1000, nowMs / 1000)
      else if (nowMs - mtimeMs > keptMs) await rm(path, { recursive: true })
    }
  }
}
