/** Layers of the fake host: what is made of a sandbox is an image like a pulled one. */

import { createHash } from "node:crypto"
import type { FinishedImage, PackedAbout, PackSource, Packs } from "../../src/core/host.ts"
import { diskNameOf } from "../../src/lib/disk-names.ts"
import type { FakePulls } from "./fake-pulls.ts"

export type FakePacks = Packs & {
  /** Disks that layers were made of, and what was asked for them. */
  packed: { source: PackSource; about: PackedAbout; bytesMax: number }[]
  pushed: { image: FinishedImage; to: Parameters<Packs["push"]>[1] }[]
  /** Awaited in the middle of each pack and push. */
  gate: Promise<unknown>
}

export function fakePacks(pulls: FakePulls, onDisk: (name: string) => void): FakePacks {
  const packs: FakePacks = {
    packed: [],
    pushed: [],
    gate: Promise.resolve(),
    async pack(source, about, { origin, bytesMax, signal }) {
      packs.packed.push({ source, about, bytesMax })
      const left = Promise.withResolvers<never>()
      signal.addEventListener("abort", () => left.reject(signal.reason), { once: true })
      await Promise.race([packs.gate, left.promise])
      const text = JSON.stringify([about, packs.packed.length])
      const manifestDigest = `sha256:${createHash("sha256").update(text).digest("hex")}`
      const diskName = diskNameOf(origin, manifestDigest)
      return { diskName, manifestDigest, bytes: 1, [Symbol.asyncDispose]: async () => undefined }
    },
    async *export({ name }, { shownAs }) {
      yield Buffer.from(`archive of ${shownAs} `)
      yield Buffer.from(name)
    },
    async push(image, to, { onProgress, signal }) {
      packs.pushed.push({ image, to })
      onProgress({ step: "pushing", layers: [{ digest: "sha256:layer", bytes: 1, total: 2 }] })
      const left = Promise.withResolvers<never>()
      signal.addEventListener("abort", () => left.reject(signal.reason), { once: true })
      await Promise.race([packs.gate, left.promise])
      return { digest: `sha256:${"d".repeat(64)}` }
    },
    async make({ diskName, manifestDigest }) {
      const about = packs.packed.at(-1)?.about
      if (!about) throw new Error("no layer was made")
      const made = {
        ...{ diskName, hash: manifestDigest.slice(7, 23), diskMib: 8192, bytes: 5 * 1024 * 1024 },
        config: about.config,
      }
      pulls.disks.set(diskName, made)
      onDisk(diskName)
      return made
    },
  }
  return packs
}
