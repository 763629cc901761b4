/** A local directory or file as a tar stream. Links are packed as links; sockets, pipes and devices are left out. */

import { lstat, readdir, readlink } from "node:fs/promises"
import { basename, join } from "node:path"
import { type Header, pack as newPack, type Pack } from "tar-stream"
import { printable } from "../words.ts"
import { isText, notText } from "./copied.ts"
import { dataExtentsOf } from "./holes.ts"
import { becameShorter, type LocalFile, localStep, openLocal, piecesOf } from "./local-file.ts"
import { type Extent, sparseHeaderOf } from "./sparse.ts"

export type Packed = {
  stream: AsyncIterable<Uint8Array>
  /** Names left out so far, each with the reason. */
  skipped: string[]
}

/** Packs `path` under `name`; if `name` is empty, packs the contents of the directory. */
export function packTree(path: string, name: string): Packed {
  const pack = newPack()
  const skipped: string[] = []
  addTree(pack, { path, name, skipped }).then(
    () => pack.finalize(),
    (error: unknown) => pack.destroy(error instanceof Error ? error : new Error(String(error))),
  )
  return { stream: pack as AsyncIterable<Uint8Array>, skipped }
}

type Node = { path: string; name: string; skipped: string[] }

async function addTree(pack: Pack, node: Node): Promise<void> {
  const { path, name, skipped } = node
  const found = await localStep(path, () => lstat(path))
  // The extra bit is not stored in the archive; without it the packer would replace mode 0 by its default.
  const common = { name, mode: (found.mode & 0o777) | 0o100_000, mtime: found.mtime }
  if (found.isDirectory()) {
    if (name !== "") await addEntry(pack, { ...common, type: "directory" })
    const children = await localStep(path, () => readdir(path))
    for (const child of children.sort()) {
      const childPath = join(path, child)
      if (isText(child))
        await addTree(pack, { path: childPath, name: name === "" ? child : `${name}/${child}`, skipped })
      else skipped.push(`${printable(childPath)}: ${notText}`)
    }
  } else if (found.isSymbolicLink()) {
    const linkname = await localStep(path, () => readlink(path))
    if (isText(linkname)) await addEntry(pack, { ...common, type: "symlink", linkname })
    else skipped.push(`${printable(path)}: its target is not UTF-8 text`)
  } else if (found.isFile()) await addFile(pack, common, path)
  else skipped.push(`${printable(path)}: it is not a file, directory or link`)
}

type FileHeader = Pick<Header, "name" | "mode" | "mtime"> & { pax?: Record<string, string> }

async function addFile(pack: Pack, header: FileHeader, path: string): Promise<void> {
  const file = await openLocal(path, { isLinkFollowed: false })
  try {
    const { handle, bytesCount: size, blocks } = file
    const extents = await dataExtentsOf(handle.fd, { size, blocks })
    if (!extents) return await addContent(pack, header, { size, pieces: piecesOf(file, path) })
    const { pax, map } = sparseHeaderOf(header.name, size, extents)
    const stored = extents.reduce((sum, { length }) => sum + length, map.length)
    const sparse = { ...header, name: `GNUSparseFile.0/${basename(header.name)}`, pax }
    await addContent(pack, sparse, { size: stored, pieces: dataOf(file, extents, { map, path }) })
  } finally {
    await file.handle.close()
  }
}

async function* dataOf(
  { handle, bytesCount }: LocalFile,
  extents: readonly Extent[],
  { map, path }: { map: Uint8Array; path: string },
): AsyncGenerator<Uint8Array> {
  yield map
  for (const { offset, length } of extents) yield* piecesOf({ handle, bytesCount: length }, path, offset)
  if ((await handle.stat()).size < bytesCount) throw becameShorter(path)
}

export async function addContent(
  pack: Pack,
  header: FileHeader,
  { size, pieces }: { size: number; pieces: AsyncIterable<Uint8Array> },
): Promise<void> {
  const done = Promise.withResolvers<void>()
  const entry = pack.entry({ ...header, type: "file", size }, (error) =>
    error ? done.reject(error) : done.resolve(),
  )
  // The archive may be cancelled while a piece is read.
  done.promise.catch(() => undefined)
  entry.on("error", done.reject)
  let wake = () => {}
  entry.on("drain", () => wake())
  for await (const piece of pieces) {
    const { promise, resolve } = Promise.withResolvers<void>()
    wake = resolve
    if (!entry.write(piece)) await Promise.race([promise, done.promise])
  }
  entry.end(null)
  await done.promise
}

function addEntry(
  pack: Pack,
  header: Pick<Header, "name" | "mode" | "mtime" | "type"> & { linkname?: string },
): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  pack.entry(header, (error) => (error ? reject(error) : resolve()))
  return promise
}
