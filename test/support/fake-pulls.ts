/** Registries and archives of the fake host: every reference leads to an image, unless a test says otherwise. */

import { createHash } from "node:crypto"
import { AppError } from "@bhatti/contract/errors"
import type { MadeImage, PullAsked, Pulls } from "../../src/core/host.ts"
import { diskNameOf } from "../../src/lib/disk-names.ts"

export type FakePulls = Pulls & {
  asked: PullAsked[]
  /** Disks that were made, by name. */
  disks: Map<string, MadeImage>
  /** Changes the content that tags lead to. */
  version: string
  refusal: AppError | undefined
  /** Awaited in the middle of each make. */
  gate: Promise<unknown>
  layerBytes: number
  /** Files of each image. */
  unpackedBytes: number
  /** Limits that callers gave, in order. */
  limits: number[]
}

const mebibyte = 1024 * 1024
const digestOf = (text: string) => `sha256:${createHash("sha256").update(text).digest("hex")}`

/** `onDisk` makes the disk known to the images of the host. */
export function fakePulls(onDisk: (name: string) => void): FakePulls {
  const make = (diskName: string): MadeImage => {
    const made: MadeImage = {
      ...{ diskName, hash: digestOf(diskName).slice(7, 23), diskMib: 8192, bytes: 5 * mebibyte },
      config: { user: "", workdir: "", env: {}, entrypoint: [], cmd: ["sh"], ports: [], labels: {} },
    }
    pulls.disks.set(diskName, made)
    onDisk(diskName)
    return made
  }
  const unpacked = (diskName: string, bytesMax: number) => {
    pulls.limits.push(bytesMax)
    if (pulls.unpackedBytes > bytesMax)
      throw new AppError("too_large", "its files are too large", { reason: "too_many_bytes" })
    return make(diskName)
  }
  const untilGate = async (signal: AbortSignal) => {
    const { promise, reject } = Promise.withResolvers<never>()
    const leave = () => reject(signal.reason)
    signal.addEventListener("abort", leave, { once: true })
    await Promise.race([pulls.gate, promise])
    signal.removeEventListener("abort", leave)
  }
  const pulls: FakePulls = {
    asked: [],
    disks: new Map(),
    version: "1",
    refusal: undefined,
    gate: Promise.resolve(),
    layerBytes: 3 * mebibyte,
    unpackedBytes: mebibyte,
    limits: [],
    async resolve(asked) {
      pulls.asked.push(asked)
      if (pulls.refusal) throw pulls.refusal
      const manifestDigest = asked.digest ?? digestOf(`${asked.repository}:${asked.tag}:${pulls.version}`)
      const layers = [{ digest: digestOf("layer"), size: pulls.layerBytes }]
      const diskName = diskNameOf(asked.host, manifestDigest)
      return {
        resolved: { diskName, indexDigest: manifestDigest, manifestDigest, layers },
        manifest: Buffer.from("{}"),
      }
    },
    find: async (diskName) => pulls.disks.get(diskName),
    async make(_asked, { resolved }, { onProgress, bytesMax, signal }) {
      const [layer] = resolved.layers
      if (layer)
        onProgress({ step: "fetching", layers: [{ digest: layer.digest, bytes: 1, total: layer.size }] })
      await untilGate(signal)
      return pulls.disks.get(resolved.diskName) ?? unpacked(resolved.diskName, bytesMax)
    },
    async receive(bytes, { bytesMax }) {
      let size = 0
      for await (const piece of bytes) size += piece.length
      if (size > bytesMax) throw new AppError("too_large", "the archive is too large")
      return { id: "archive", bytes: size, [Symbol.asyncDispose]: async () => {} }
    },
    async openArchive(archive, { origin }) {
      const manifestDigest = digestOf(`${archive.bytes}`)
      return { diskName: diskNameOf(origin, manifestDigest), manifestDigest }
    },
    async import(_archive, { opened, bytesMax, signal }) {
      await untilGate(signal)
      return unpacked(opened.diskName, bytesMax)
    },
    async makeOf(_disk, { diskName, config, signal }) {
      await untilGate(signal)
      const made = { ...(pulls.disks.get(diskName) ?? make(diskName)), config }
      pulls.disks.set(diskName, made)
      return made
    },
    async removeUnfinished() {},
    async removeUnused(isNeeded) {
      const removed: string[] = []
      for (const { diskName, hash } of [...pulls.disks.values()]) {
        if (await isNeeded({ name: diskName, hash })) continue
        if (pulls.disks.delete(diskName)) removed.push(diskName)
      }
      return removed
    },
    async evictLayers() {},
  }
  return pulls
}
