/**
 * The files that other machines install from this daemon: those in DATA/clients, made by scripts/release.ts; if there
 * is none for this platform, the running program itself. Files are read as they are sent.
 */

import { type FileHandle, open, readFile } from "node:fs/promises"
import { join } from "node:path"
import { createGunzip, type Gunzip } from "node:zlib"
import { AppError } from "@bhatti/contract/errors"
import installScript from "../scripts/install-client.sh" with { type: "text" }
import type { Download, Downloads } from "./http/install.ts"
import { whenMissing, whenNowhere } from "./lib/missing-files.ts"

const pieceBytes = 256 * 1024
const sumsBytesMax = 64 * 1024
const sumLine = /^([0-9a-f]{64}) [ *]([A-Za-z0-9][A-Za-z0-9._-]{0,99})$/

export type DownloadsOptions = {
  /** Directory of SHA256SUMS and its files; it may be missing. */
  directory: string
  /** The running program, for its own platform; undefined if it is not bhatti's own binary. */
  program: { name: string; path: string } | undefined
}

/** A program made by scripts/compile.ts; a run from sources has no file of its own. */
export function ownProgram(): DownloadsOptions["program"] {
  if (!Bun.main.startsWith("/$bunfs/")) return undefined
  // Opened without its path: a newer file may be there by now, with another checksum.
  return { name: `bhatti-${process.platform}-${process.arch}`, path: "/proc/self/exe" }
}

export class HostDownloads implements Downloads {
  readonly #options: DownloadsOptions
  #programSum: Promise<string> | undefined

  constructor(options: DownloadsOptions) {
    this.#options = options
  }

  script(address: string): string {
    return installScript
      .replace("\nfiles=\n", `\nfiles='${address}/install'\n`)
      .replace("\ndaemon=\n", `\ndaemon='${address}'\n`)
  }

  async sums(): Promise<string> {
    const { program } = this.#options
    const lines = await this.#listed()
    if (program !== undefined && !lines.has(program.name))
      lines.set(program.name, await this.#sumOf(program.path))
    return [...lines].map(([name, sum]) => `${sum}  ${name}\n`).join("")
  }

  /** Only listed files: a name from outside becomes a path here. */
  async open(name: string): Promise<Download | undefined> {
    const { directory, program } = this.#options
    const lines = await this.#listed()
    if (!lines.has(name)) return name === program?.name ? await reading(await open(program.path)) : undefined
    const file = await open(join(directory, name)).catch(whenMissing)
    if (file !== undefined) return await reading(file)
    const packed = await open(join(directory, `${name}.gz`)).catch(whenMissing)
    return packed && unpacking(packed)
  }

  async #listed(): Promise<Map<string, string>> {
    const path = join(this.#options.directory, "SHA256SUMS")
    const text = (await readFile(path, "utf8").catch(whenNowhere)) ?? ""
    if (text.length > sumsBytesMax)
      throw new AppError("unavailable", `${path} is too large`, { retryable: false })
    const lines = text.split("\n").flatMap((line) => {
      const [, sum, name] = sumLine.exec(line) ?? []
      return sum !== undefined && name !== undefined ? [[name, sum] as const] : []
    })
    return new Map(lines)
  }

  /** Caches the checksum of a file that does not change while this process runs. */
  #sumOf(path: string): Promise<string> {
    this.#programSum ??= (async () => {
      const file = await reading(await open(path))
      const hash = new Bun.CryptoHasher("sha256")
      try {
        for (let piece = await file.next(); piece; piece = await file.next()) hash.update(piece)
      } finally {
        file.close()
      }
      return hash.digest("hex")
    })().catch((error: unknown) => {
      this.#programSum = undefined
      throw error
    })
    return this.#programSum
  }
}

async function reading(file: FileHandle): Promise<Download> {
  const { size } = await file.stat()
  let at = 0
  return {
    bytesCount: size,
    async next() {
      const { bytesRead, buffer } = await file.read(new Uint8Array(pieceBytes), 0, pieceBytes, at)
      at += bytesRead
      return bytesRead === 0 ? undefined : buffer.subarray(0, bytesRead)
    },
    close: () => void file.close().catch(() => undefined),
  }
}

/** Unpacks for clients that request the program itself if only the packed one is kept. */
function unpacking(file: FileHandle): Download {
  const source = file.createReadStream({ highWaterMark: pieceBytes })
  const unpacked: Gunzip = createGunzip({ chunkSize: pieceBytes })
  source.on("error", (error) => unpacked.destroy(error))
  // The next read rejects with this error; without a listener between two reads, the process would end.
  unpacked.on("error", () => undefined)
  const pieces = source.pipe(unpacked)[Symbol.asyncIterator]()
  return {
    bytesCount: undefined,
    async next() {
      const { done, value } = await pieces.next()
      return done ? undefined : value
    },
    close() {
      unpacked.destroy()
      source.destroy()
    },
  }
}
