/** The directory of a build as a tar archive, without what its ignore file names. */

import { lstat, readdir, readFile, readlink } from "node:fs/promises"
import { join } from "node:path"
import type { BuildImage } from "@bhatti/contract/image"
import { pack as newPack, type Pack } from "tar-stream"
import type { IgnoreRule } from "../lib/ignore-rules.ts"
import { ignores, readIgnoreRules } from "../lib/ignore-rules.ts"
import { isMissing } from "../lib/missing-files.ts"
import { byteStream } from "./copy/byte-stream.ts"
import { localStep, openLocal, piecesOf } from "./copy/local-file.ts"
import { addContent } from "./copy/pack.ts"

/** Rules of the Dockerfile's own file, such as `app.Dockerfile.dockerignore`, or of the directory. */
export async function ignoreRulesOf(
  directory: string,
  dockerfile: string | undefined,
): Promise<IgnoreRule[]> {
  const candidates = [
    ...(dockerfile === undefined ? [] : [`${dockerfile}.dockerignore`]),
    join(directory, ".dockerignore"),
  ]
  for (const path of candidates) {
    try {
      return readIgnoreRules(await readFile(path, "utf8"))
    } catch (error) {
      if (!isMissing(error)) throw error
    }
  }
  return []
}

export function packDirectory(directory: string, rules: readonly IgnoreRule[]): AsyncIterable<Uint8Array> {
  const archive = newPack()
  addBelow(archive, { directory, name: "", rules }).then(
    () => archive.finalize(),
    (error: unknown) => archive.destroy(error instanceof Error ? error : new Error(String(error))),
  )
  return archive as AsyncIterable<Uint8Array>
}

/** An archive without an entry. */
export function emptyDirectory(): AsyncIterable<Uint8Array> {
  const archive = newPack()
  archive.finalize()
  return archive as AsyncIterable<Uint8Array>
}

/** A line that says how to build, and the directory behind it. */
export function buildBody(asked: BuildImage, archive: AsyncIterable<Uint8Array>): ReadableStream<Uint8Array> {
  const pieces = async function* () {
    yield new TextEncoder().encode(`${JSON.stringify(asked)}\n`)
    yield* archive
  }
  return byteStream(pieces(), () => {})
}

type Place = { directory: string; name: string; rules: readonly IgnoreRule[] }

async function addBelow(archive: Pack, { directory, name, rules }: Place): Promise<void> {
  const children = await localStep(directory, () => readdir(directory))
  for (const child of children.sort()) {
    const path = join(directory, child)
    const inArchive = name === "" ? child : `${name}/${child}`
    const isLeftOut = ignores(rules, inArchive)
    const found = await localStep(path, () => lstat(path))
    // A later rule may take back what is below it.
    const mayHoldMore = found.isDirectory() && rules.some(({ isException }) => isException)
    if (isLeftOut && !mayHoldMore) continue
    // The extra bit is not stored in the archive; without it the packer would replace mode 0 by its default.
    const common = { name: inArchive, mode: (found.mode & 0o7777) | 0o100_000, mtime: found.mtime }
    if (found.isDirectory()) {
      if (!isLeftOut) archive.entry({ ...common, type: "directory" })
      await addBelow(archive, { directory: path, name: inArchive, rules })
    } else if (found.isSymbolicLink()) {
      const linkname = await localStep(path, () => readlink(path))
      archive.entry({ ...common, type: "symlink", linkname })
    } else if (found.isFile()) {
      const file = await openLocal(path, { isLinkFollowed: false })
      try {
        await addContent(archive, common, { size: file.bytesCount, pieces: piecesOf(file, path) })
      } finally {
        await file.handle.close()
      }
    }
  }
}
