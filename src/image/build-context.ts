/**
 * The directory that a client sends for a build, a tar archive: an index of its entries, and the contents of its files
 * one after the other in a spool. Nothing is unpacked on the host, so no name of an entry is ever a path here.
 */

import { createHash } from "node:crypto"
import { open, statfs } from "node:fs/promises"
import { join } from "node:path"
import { Readable } from "node:stream"
import { AppError } from "@bhatti/contract/errors"
import { extract, type Header } from "tar-stream"
import { refusal } from "./refusal.ts"
import { makeStaging } from "./registry/staging.ts"

type Entry = {
  path: string
  kind: "file" | "directory" | "link"
  mode: number
  modifiedMs: number
  size: number
  link: string | null
  digest: string
}
type Context = {
  bytes: number
  entries: ReadonlyMap<string, Entry>
  read(path: string): AsyncIterable<Uint8Array>
} & AsyncDisposable

/** Takes bytes in order, and gives them back from any place. */
export type Spool = {
  write(bytes: Uint8Array): Promise<void>
  read(place: { offset: number; bytes: number }): Promise<Uint8Array>
}

const entriesMax = 200_000
const pathMax = 4096
const pieceBytes = 1024 * 1024
const lookEveryBytes = 16 * 1024 * 1024
const noDigest = ""

export class BuildContexts {
  readonly #dataDir: string
  readonly #freeBytes: number

  constructor({ dataDir, freeBytes }: { dataDir: string; freeBytes: number }) {
    this.#dataDir = dataDir
    this.#freeBytes = freeBytes
  }

  async receive(archive: AsyncIterable<Uint8Array>, { bytesMax }: { bytesMax: number }): Promise<Context> {
    await using undo = new AsyncDisposableStack()
    const staging = undo.use(await makeStaging(this.#dataDir))
    const file = await open(join(staging.path, "context"), "wx+", 0o600)
    undo.defer(() => file.close())
    let unlooked = lookEveryBytes
    const spool: Spool = {
      write: async (bytes) => {
        unlooked += bytes.length
        if (unlooked >= lookEveryBytes) {
          unlooked = 0
          await this.#checkRoom()
        }
        for (let done = 0; done < bytes.length; )
          done += (await file.write(bytes, done, bytes.length - done)).bytesWritten
      },
      async read({ offset, bytes }) {
        const buffer = Buffer.allocUnsafe(bytes)
        const { bytesRead } = await file.read(buffer, 0, bytes, offset)
        return buffer.subarray(0, bytesRead)
      },
    }
    const read = await readContext(archive, spool, { bytesMax })
    const kept = undo.move()
    return { ...read, [Symbol.asyncDispose]: () => kept.disposeAsync() }
  }

  async #checkRoom(): Promise<void> {
    const { bavail, bsize } = await statfs(this.#dataDir)
    if (bavail * bsize < this.#freeBytes) throw refusal("no_space", "the host's disk is nearly full")
  }
}

export async function readContext(
  archive: AsyncIterable<Uint8Array>,
  spool: Spool,
  { bytesMax }: { bytesMax: number },
): Promise<Omit<Context, typeof Symbol.asyncDispose>> {
  const entries = new Map<string, Entry & { offset: number }>()
  let bytes = 0
  let spooled = 0
  const counted = async function* () {
    for await (const piece of archive) {
      bytes += piece.length
      if (bytes > bytesMax) throw tooLarge(bytesMax)
      yield piece
    }
  }
  const unpacking = extract()
  const source = Readable.from(counted())
  source.on("error", (error) => unpacking.destroy(error))
  source.pipe(unpacking)
  try {
    for await (const entry of unpacking) {
      const { header } = entry
      const path = pathOf(header.name)
      const hash = createHash("sha256")
      const offset = spooled
      for await (const piece of entry as AsyncIterable<Uint8Array>) {
        hash.update(piece)
        spooled += piece.length
        await spool.write(piece)
      }
      const made = entryOf(header, path, entries)
      if (!made || path === "") continue
      if (entries.size >= entriesMax)
        throw new AppError("too_large", `the build's directory has more than ${entriesMax} entries`)
      const isOwn = header.type === "file" || header.type === "contiguous-file"
      entries.set(path, {
        offset,
        ...made,
        ...(isOwn && { size: spooled - offset, digest: hash.digest("hex") }),
      })
    }
  } catch (error) {
    if (error instanceof AppError) throw error
    throw new AppError("invalid", "the build's directory is not a whole tar archive", { cause: error })
  }
  return {
    bytes,
    entries,
    async *read(path) {
      const entry = entries.get(path)
      if (entry?.kind !== "file") throw new Error(`${path} is no file of the context`)
      for (let done = 0; done < entry.size; ) {
        const length = Math.min(pieceBytes, entry.size - done)
        const piece = await spool.read({ offset: entry.offset + done, bytes: length })
        if (piece.length === 0) throw new Error("the context is cut")
        done += piece.length
        yield piece
      }
    },
  }
}

/** Returns undefined for devices and the like, which a build does not copy. */
function entryOf(
  { type, mode, mtime, linkname }: Header,
  path: string,
  entries: ReadonlyMap<string, Entry & { offset: number }>,
): (Entry & { offset?: number }) | undefined {
  const common = {
    path,
    mode: (mode ?? 0o644) & 0o7777,
    modifiedMs: mtime?.getTime() ?? 0,
    ...{ size: 0, link: null, digest: noDigest },
  }
  switch (type) {
    case "file":
    case "contiguous-file":
      return { ...common, kind: "file" }
    case "directory":
      return { ...common, kind: "directory" }
    case "symlink":
      return { ...common, kind: "link", link: linkname ?? "" }
    case "link": {
      const target = entries.get(pathOf(linkname ?? ""))
      return target && { ...target, path }
    }
  }
  return undefined
}

function pathOf(name: string): string {
  const parts = name.split("/").filter((part) => part !== "" && part !== ".")
  if (parts.includes("..") || name.length > pathMax || name.includes("\0"))
    throw new AppError("invalid", "the build's directory has an entry with an impossible name")
  return parts.join("/")
}

function tooLarge(bytesMax: number): AppError {
  const mib = Math.floor(bytesMax / 1024 / 1024)
  return new AppError("too_large", `the build's directory is larger than ${mib} MB`, {
    hint: "leave out what the build does not need, in .dockerignore",
    reason: "too_many_bytes",
  })
}
