/** Archives that users send: received into a file within bounds, and read by the unpacker, which has no rights. */

import { open, statfs } from "node:fs/promises"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import type { ImageConfig } from "@bhatti/contract/image-config"
import { readArchive } from "../archive.ts"
import { refusal } from "../refusal.ts"
import type { UnpackedImage } from "../unpack.ts"
import { makeStaging, type Staging } from "./staging.ts"

export type ArchiveSettings = { dataDir: string; uid: number; bytesMax: number; freeBytes: number }

/** A received archive in its own staging directory. */
export type Archive = { id: string; bytes: number; staging: Staging } & AsyncDisposable

/** An image's layers, or the tree of a root file system as a finished disk. */
export type Content = { manifestDigest: string } & (
  | { layout: string }
  | { image: Pick<UnpackedImage, "disk" | "sizeMib" | "config"> }
)

const lookEveryBytes = 16 * 1024 * 1024
/** A root file system says nothing about how its programs run. */
const noConfig: ImageConfig = {
  ...{ user: "", workdir: "", env: {}, entrypoint: [], cmd: [], ports: [], labels: {} },
}

export class Archives {
  readonly #settings: ArchiveSettings

  constructor(settings: ArchiveSettings) {
    this.#settings = settings
  }

  async receive(bytes: AsyncIterable<Uint8Array>, { bytesMax }: { bytesMax: number }): Promise<Archive> {
    await using undo = new AsyncDisposableStack()
    const staging = undo.use(await makeStaging(this.#settings.dataDir))
    await using file = await open(inputOf(staging), "wx", 0o600)
    let size = 0
    let unlooked = lookEveryBytes
    for await (const piece of bytes) {
      size += piece.length
      unlooked += piece.length
      if (size > bytesMax) throw tooLarge(bytesMax)
      if (unlooked >= lookEveryBytes) {
        unlooked = 0
        await this.#checkRoom()
      }
      await file.write(piece)
    }
    if (size === 0) throw new AppError("invalid", "the archive is empty")
    undo.move()
    return {
      ...{ id: staging.path, bytes: size, staging },
      [Symbol.asyncDispose]: () => staging[Symbol.asyncDispose](),
    }
  }

  async contentOf(
    { staging }: Archive,
    { bytesMax, signal }: { bytesMax: number; signal: AbortSignal },
  ): Promise<Content> {
    const { uid, freeBytes } = this.#settings
    const read = await readArchive({
      archive: Bun.file(inputOf(staging)).stream(),
      directory: join(staging.path, "archive"),
      limits: { compressedBytes: this.#settings.bytesMax, unpackedBytes: bytesMax, freeBytes },
      ...{ uid, signal },
    })
    if (read.kind === "layers") return { layout: read.layout, manifestDigest: read.manifestDigest }
    return { image: { ...read.image, config: noConfig }, manifestDigest: `sha256:${read.id}` }
  }

  async #checkRoom(): Promise<void> {
    const { bavail, bsize } = await statfs(this.#settings.dataDir)
    if (bavail * bsize >= this.#settings.freeBytes) return
    throw refusal("no_space", "the host's disk is nearly full")
  }
}

function inputOf({ path }: Staging): string {
  return join(path, "input")
}

function tooLarge(bytesMax: number): AppError {
  const mib = Math.floor(bytesMax / 1024 / 1024)
  return new AppError("too_large", `the archive is larger than ${mib} MB`, {
    hint: "the operator's limit is image_max_mb in config.yaml",
    reason: "too_many_bytes",
  })
}
