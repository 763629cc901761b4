/**
 * Archives that users send, as OCI layouts: what `docker save` writes and OCI archives are read by skopeo, apart from
 * the host and without any network; any other tar archive is a root file system, and becomes the only layer.
 */

import { createHash } from "node:crypto"
import { createReadStream, createWriteStream } from "node:fs"
import { chmod, chown, mkdir, open, readdir, readFile, rename, statfs, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { pipeline } from "node:stream/promises"
import { createGunzip, createZstdDecompress } from "node:zlib"
import { AppError } from "@bhatti/contract/errors"
import { z } from "zod"
import { parseJson } from "../../lib/parse-json.ts"
import { refusal } from "../refusal.ts"
import { findSkopeo, runConfined } from "./confined.ts"
import { makeStaging, makeWork, type Staging } from "./staging.ts"
import { namesIn } from "./tar-names.ts"
import { errorOf } from "./words.ts"

export type ArchiveSettings = {
  dataDir: string
  uid: number
  bytesMax: number
  freeBytes: number
  timeoutMs: number
}

/** A received archive in its own staging directory. */
export type Archive = { id: string; bytes: number; staging: Staging } & AsyncDisposable
export type Layout = { layout: string; manifestDigest: string }

const lookEveryBytes = 16 * 1024 * 1024
const LayoutIndex = z.object({ manifests: z.array(z.object({ digest: z.string() })) })

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

  async layoutOf({ staging }: Archive, signal: AbortSignal): Promise<Layout> {
    const input = await this.#uncompressed(staging, signal)
    await using file = await open(input, "r")
    const names = await namesIn(file, new Set(["manifest.json", "oci-layout", "index.json"]))
    if (names === undefined) throw refusal("not_an_image", "this is no tar archive")
    if (names.has("manifest.json")) return await this.#convert("docker-archive", staging, input, signal)
    if (names.has("oci-layout")) return await this.#convert("oci-archive", staging, input, signal)
    return await layoutOfTree(staging, input)
  }

  async #convert(kind: string, staging: Staging, input: string, signal: AbortSignal): Promise<Layout> {
    const { uid, bytesMax, timeoutMs } = this.#settings
    const directory = await makeWork(staging.path, uid)
    const ended = await runConfined(
      [
        ...[findSkopeo(), "--policy", "/etc/containers/policy.json", "--tmpdir", "/work", "copy", "--quiet"],
        ...["--dest-oci-accept-uncompressed-layers", `${kind}:/input`, "oci:/work/layout:image"],
      ],
      { directory, uid, input, isOffline: true, fileBytesMax: bytesMax, deadlineMs: timeoutMs, signal },
    )
    if (ended.code !== 0) {
      const cause = errorOf(ended, "the archive")
      throw refusal("bad_archive", "the archive cannot be read as an image", { cause, hint: cause.hint })
    }
    const layout = join(directory, "layout")
    await takeOver(layout)
    const index = LayoutIndex.safeParse(parseJson(await readFile(join(layout, "index.json"), "utf8"))).data
    const [manifest] = index?.manifests ?? []
    if (!manifest) throw refusal("bad_manifest", "the archive holds no image")
    return { layout, manifestDigest: manifest.digest }
  }

  async #uncompressed(staging: Staging, signal: AbortSignal): Promise<string> {
    const input = inputOf(staging)
    await using file = await open(input, "r")
    const magic = Buffer.alloc(4)
    await file.read(magic, 0, 4, 0)
    const isGzip = magic.readUInt16BE(0) === 0x1f8b
    const isZstd = magic.readUInt32BE(0) === 0x28b52ffd
    if (!isGzip && !isZstd) return input
    const plain = join(staging.path, "plain")
    let size = 0
    const { bytesMax } = this.#settings
    const counted = async function* (source: AsyncIterable<Buffer>) {
      for await (const piece of source) {
        size += piece.length
        if (size > bytesMax) throw tooLarge(bytesMax)
        yield piece
      }
    }
    try {
      const unpack = isGzip ? createGunzip() : createZstdDecompress()
      await pipeline(createReadStream(input), unpack, counted, createWriteStream(plain), { signal })
    } catch (cause) {
      signal.throwIfAborted()
      if (cause instanceof AppError) throw cause
      throw refusal("bad_archive", "the archive cannot be unpacked", { cause })
    }
    return plain
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

/** Nothing that runs as another user may change what is read from now on. */
async function takeOver(layout: string): Promise<void> {
  const blobs = join(layout, "blobs", "sha256")
  for (const directory of [layout, join(layout, "blobs"), blobs]) {
    await chown(directory, process.getuid?.() ?? 0, process.getgid?.() ?? 0)
    await chmod(directory, 0o755)
  }
  for (const name of await readdir(blobs)) {
    await chown(join(blobs, name), process.getuid?.() ?? 0, process.getgid?.() ?? 0)
    await chmod(join(blobs, name), 0o444)
  }
}

async function layoutOfTree(staging: Staging, input: string): Promise<Layout> {
  const layout = join(staging.path, "layout")
  const blobs = join(layout, "blobs", "sha256")
  await mkdir(blobs, { recursive: true, mode: 0o755 })
  const put = async (text: string) => {
    const hex = createHash("sha256").update(text).digest("hex")
    await writeFile(join(blobs, hex), text, { mode: 0o444 })
    return { digest: `sha256:${hex}`, size: Buffer.byteLength(text) }
  }
  const hash = createHash("sha256")
  let size = 0
  for await (const piece of createReadStream(input)) {
    hash.update(piece)
    size += piece.length
  }
  const hex = hash.digest("hex")
  await rename(input, join(blobs, hex))
  await chmod(join(blobs, hex), 0o444)
  const digest = `sha256:${hex}`
  const config = await put(
    JSON.stringify({
      ...{ architecture: "amd64", os: "linux", config: {} },
      rootfs: { type: "layers", diff_ids: [digest] },
    }),
  )
  const manifest = await put(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: "application/vnd.oci.image.manifest.v1+json",
      config: { mediaType: "application/vnd.oci.image.config.v1+json", ...config },
      layers: [{ mediaType: "application/vnd.oci.image.layer.v1.tar", digest, size }],
    }),
  )
  return { layout, manifestDigest: manifest.digest }
}

function tooLarge(bytesMax: number): AppError {
  const mib = Math.floor(bytesMax / 1024 / 1024)
  return new AppError("too_large", `the archive is larger than ${mib} MB`, {
    hint: "the operator's limit is image_max_mb in config.yaml",
    reason: "too_many_bytes",
  })
}
