/**
 * Looks at the files of a running fetch: how far each layer is, and whether it takes more than it may. skopeo tells
 * neither, and names a layer's file only when it is whole; unfinished files belong to the missing layers in the order
 * of their making, since it begins them in order.
 */

import { readdir, stat, statfs } from "node:fs/promises"
import { join } from "node:path"
import { errorCodeOf } from "../../lib/error-code.ts"
import { hexOf } from "../oci-manifest.ts"
import { refusal } from "../refusal.ts"

export type LayerState = { digest: string; bytes: number; total: number }

const lookMs = 250
/** Documents and rounding. */
const slackBytes = 16 * 1024 * 1024

type Watched = {
  work: string
  layers: readonly { digest: string; size: number }[]
  /** Bytes that stay free on the file system. */
  freeBytes: number
  onProgress: (layers: LayerState[]) => void
  onExcess: (error: Error) => void
}

export function watchFetch(watched: Watched): AsyncDisposable {
  const total = watched.layers.reduce((sum, { size }) => sum + size, 0)
  let isOver = false
  const look = async () => {
    const { states, bytes } = await lookAt(watched)
    watched.onProgress(states)
    if (bytes > total + slackBytes)
      watched.onExcess(refusal("too_many_bytes", "the registry sends more bytes than the manifest says"))
    const { bavail, bsize } = await statfs(watched.work)
    if (bavail * bsize < watched.freeBytes)
      watched.onExcess(refusal("no_space", "the host's disk is nearly full"))
  }
  const looking = (async () => {
    while (!isOver) {
      await look()
      await Bun.sleep(lookMs)
    }
  })().catch((error: unknown) => watched.onExcess(error as Error))
  return {
    async [Symbol.asyncDispose]() {
      isOver = true
      await looking
    },
  }
}

async function lookAt({ work, layers }: Watched): Promise<{ states: LayerState[]; bytes: number }> {
  const whole = await filesIn(join(work, "blobs", "sha256"))
  const parts = (await filesIn(join(work, "layout")))
    .filter(({ name }) => name.startsWith("oci-put-blob"))
    .sort((one, other) => one.bornMs - other.bornMs)
  const isWhole = new Set(whole.map(({ name }) => name))
  const states = layers.map(({ digest, size }) => {
    if (isWhole.has(hexOf(digest))) return { digest, bytes: size, total: size }
    const part = parts.shift()
    return { digest, bytes: Math.min(part?.size ?? 0, size), total: size }
  })
  const bytes = [
    ...whole.filter(({ nlink }) => nlink === 1),
    ...(await filesIn(join(work, "layout"))),
  ].reduce((sum, { size }) => sum + size, 0)
  return { states, bytes }
}

async function filesIn(directory: string) {
  const files = []
  for (const name of await readdir(directory)) {
    try {
      const { size, birthtimeMs, nlink } = await stat(join(directory, name))
      files.push({ name, size, bornMs: birthtimeMs, nlink })
    } catch (error) {
      if (errorCodeOf(error) !== "ENOENT") throw error
    }
  }
  return files
}
