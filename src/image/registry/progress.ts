/**
 * Looks at a running fetch or push: how far each layer is, and whether it takes more than it may. skopeo tells neither,
 * and names a layer's file only when it is whole; unfinished files belong to the missing layers in the order
 * of their making, since it begins them in order.
 */

import { readdir, stat, statfs } from "node:fs/promises"
import { join } from "node:path"
import { errorCodeOf } from "../../lib/error-code.ts"
import { descriptorsOf, listPids, readOfProcess } from "../../lib/process-identity.ts"
import { hexOf } from "../oci-manifest.ts"
import { refusal } from "../refusal.ts"
import { noByte } from "./words.ts"

export type LayerState = { digest: string; bytes: number; total: number }

const lookMs = 250
/** Documents and rounding. */
const slackBytes = 16 * 1024 * 1024

type Watched = {
  work: string
  layers: readonly { digest: string; size: number }[]
  /** Bytes that stay free on the file system. */
  freeBytes: number
  stallMs: number
  /** The registry's. */
  host: string
  onProgress: (layers: LayerState[]) => void
  onExcess: (error: Error) => void
}

export function watchFetch(watched: Watched): AsyncDisposable {
  const total = watched.layers.reduce((sum, { size }) => sum + size, 0)
  const stall = new Stall(watched.stallMs)
  const look = async () => {
    const { states, bytes } = await lookAt(watched)
    watched.onProgress(states)
    if (stall.isOver(bytes)) watched.onExcess(noByte(watched.host, watched.stallMs))
    if (bytes > total + slackBytes)
      watched.onExcess(refusal("too_many_bytes", "the registry sends more bytes than the manifest says"))
    const { bavail, bsize } = await statfs(watched.work)
    if (bavail * bsize < watched.freeBytes)
      watched.onExcess(refusal("no_space", "the host's disk is nearly full"))
  }
  return looking(look, watched.onExcess)
}

function looking(look: () => Promise<void>, onError: (error: Error) => void): AsyncDisposable {
  let isOver = false
  const going = (async () => {
    while (!isOver) {
      await look()
      await Bun.sleep(lookMs)
    }
  })().catch((error: unknown) => onError(error as Error))
  return {
    async [Symbol.asyncDispose]() {
      isOver = true
      await going
    },
  }
}

/** Tells when a number has not changed for some time. */
class Stall {
  readonly #limitMs: number
  #last = -1
  #sinceMs = performance.now()

  constructor(limitMs: number) {
    this.#limitMs = limitMs
  }

  isOver(value: number): boolean {
    if (value !== this.#last) {
      this.#last = value
      this.#sinceMs = performance.now()
    }
    return performance.now() - this.#sinceMs > this.#limitMs
  }
}

/**
 * Looks at a running push: the program reads the layer from its file, whose descriptor says how far it is. It counts
 * the layer's own bytes, which are compressed on their way.
 */
export function watchPush(watched: {
  uid: number
  layer: { digest: string; size: number }
  host: string
  stallMs: number
  onProgress: (layers: LayerState[]) => void
  onStall: (error: Error) => void
}): AsyncDisposable {
  const { digest, size: total } = watched.layer
  const stall = new Stall(watched.stallMs)
  let bytes = 0
  const look = async () => {
    const place = placeIn(watched.uid, hexOf(digest))
    bytes = Math.min(Math.max(bytes, place), total)
    watched.onProgress([{ digest, bytes, total }])
    if (stall.isOver(place)) watched.onStall(noByte(watched.host, watched.stallMs))
  }
  return looking(look, watched.onStall)
}

/** The position in the file of that name, of any program of the user id; 0 if none has it open. */
function placeIn(uid: number, name: string): number {
  let place = 0
  for (const pid of listPids()) {
    if (Number(/^Uid:\t(\d+)/m.exec(readOfProcess(pid, "status"))?.[1]) !== uid) continue
    for (const { fd, name: file } of descriptorsOf(pid)) {
      if (!file.endsWith(`/${name}`)) continue
      place = Math.max(place, Number(/^pos:\t(\d+)/m.exec(readOfProcess(pid, `fdinfo/${fd}`))?.[1] ?? 0))
    }
  }
  return place
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
