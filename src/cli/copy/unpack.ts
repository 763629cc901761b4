/**
 * Unpacks an untrusted tar stream made by a sandbox. Never writes outside the root: names must not contain `..`,
 * every parent must be a real directory, and a link is made only if its target is inside. Skips devices and pipes,
 * and ignores owners and set-user-id bits.
 */

import { link, lstat, mkdir, rename, symlink, unlink } from "node:fs/promises"
import { dirname, join, posix } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { type Header, extract as newExtract } from "tar-stream"
import { errorCodeOf } from "../../lib/error-code.ts"
import { printable } from "../words.ts"
import { isText, notText } from "./copied.ts"
import { type LeftOut, leftOutOf } from "./left-out.ts"
import { besideName, localFailure, localStep, placeFile } from "./local-file.ts"
import { type Part, sparseFileOf } from "./sparse.ts"

export type Unpacked = {
  entries: number
  bytes: number
  /** Names left out, each with the reason; not all of them if the sandbox left out many. */
  skipped: string[]
  skippedCount: number
}

/** The first part of every name, the requested directory, becomes `root`. */
export async function unpackTree(archive: AsyncIterable<Uint8Array>, root: string): Promise<Unpacked> {
  const extract = newExtract()
  let broken: Error | undefined
  extract.on("error", (error) => {
    broken = error
  })
  const fed = feed(archive, extract)
  // Awaited below, unless an entry fails first.
  fed.catch(() => undefined)
  const tree = new Tree(root)
  try {
    for await (const entry of extract) {
      await place(tree, entry.header, entry as AsyncIterable<Uint8Array>)
      entry.resume()
    }
    await fed
  } catch (error) {
    if (error !== broken || error instanceof AppError) throw error
    throw brokenArchive(error)
  }
  if (!tree.hasBegun) throw brokenArchive()
  return tree.result
}

function brokenArchive(cause?: unknown): AppError {
  return new AppError("unavailable", "the sandbox sent a broken archive", { cause, retryable: false })
}

async function place(tree: Tree, header: Header, content: AsyncIterable<Uint8Array>): Promise<void> {
  const sparse = sparseFileOf(header, content)
  const path = tree.insidePath(sparse?.name ?? header.name)
  const leftOut = path === "" ? leftOutOf(header) : undefined
  if (leftOut) return tree.leaveOut(leftOut)
  if (!isText(path)) return tree.skip(path, notText)
  switch (header.type) {
    case "directory":
      return await tree.makeDirectory(path, header.mode)
    case "file":
    case "contiguous-file":
      return await tree.writeFile(path, header, sparse ?? { size: header.size, parts: content })
    case "symlink":
      return await tree.makeLink(path, linkOf(header))
    case "link":
      return await tree.makeHardLink(path, tree.insidePath(linkOf(header)))
    default:
      return tree.skip(path, "it is not a file, directory or link")
  }
}

/** Treats an empty link target as none. */
function linkOf(header: Header): string {
  const target: string | null = header.linkname
  return target ?? ""
}

type Extract = ReturnType<typeof newExtract>

async function feed(archive: AsyncIterable<Uint8Array>, extract: Extract): Promise<void> {
  let wake = () => {}
  for (const event of ["drain", "close"] as const) extract.on(event, () => wake())
  try {
    for await (const chunk of archive) {
      if (extract.destroyed) return
      const { promise, resolve } = Promise.withResolvers<void>()
      wake = resolve
      if (!extract.write(chunk)) await promise
    }
    extract.end(null)
  } catch (error) {
    extract.destroy(error instanceof Error ? error : new Error(String(error)))
    throw error
  }
}

class Tree {
  readonly result: Unpacked = { entries: 0, bytes: 0, skipped: [], skippedCount: 0 }
  readonly #root: string
  hasBegun = false
  /** The directory that was checked last; entries of one directory arrive together. */
  #knownDirectory: string | undefined

  constructor(root: string) {
    this.#root = root
  }

  /** Returns an entry's path below the root, `""` for the root itself. */
  insidePath(name: string): string {
    this.hasBegun = true
    const [top, ...parts] = name.replace(/\/+$/, "").split("/")
    if (top === "" || top === ".." || parts.some((part) => part === "" || part === "." || part === ".."))
      throw new AppError(
        "invalid",
        `the sandbox sent a name that is not below its directory: ${printable(name)}`,
      )
    return parts.join("/")
  }

  async makeDirectory(path: string, mode: number): Promise<void> {
    await this.#checkParent(path)
    const place = join(this.#root, path)
    this.result.entries++
    try {
      await mkdir(place, (mode & 0o777) | 0o700)
    } catch (error) {
      if (errorCodeOf(error) !== "EEXIST") throw localFailure(place, error)
      // The root is the caller's to choose, and may be a link.
      if (path !== "" && !(await lstat(place)).isDirectory())
        throw new AppError("conflict", `${place} exists and is not a directory`)
    }
  }

  async writeFile(
    path: string,
    { mode }: Header,
    { size, parts }: { size: number; parts: AsyncIterable<Part> },
  ): Promise<void> {
    await this.#checkParent(path)
    await placeFile(join(this.#root, path), parts, { mode })
    this.result.entries++
    this.result.bytes += size
  }

  async makeLink(path: string, target: string): Promise<void> {
    if (!isText(target)) return this.skip(path, "its target is not UTF-8 text")
    if (path === "" || !leadsInside(path, target))
      return this.skip(path, `its target ${printable(target)} may lie outside the copied directory`)
    await this.#checkParent(path)
    await this.#replace(path, (beside) => symlink(target, beside))
  }

  async makeHardLink(path: string, first: string): Promise<void> {
    if (!isText(first)) return this.skip(path, "it is a hard link to something that was not copied")
    await this.#checkParent(first)
    await this.#checkParent(path)
    const existing = join(this.#root, first)
    const found = await localStep(existing, () => lstat(existing))
    if (!found.isFile()) return this.skip(path, "it is a hard link to something that is not a file")
    await this.#replace(path, (beside) => link(existing, beside))
  }

  skip(path: string, why: string): void {
    this.result.skipped.push(`${printable(path)}: ${why}`)
    this.result.skippedCount++
  }

  leaveOut({ count, lines }: LeftOut): void {
    this.result.skipped.push(...lines)
    this.result.skippedCount += count
  }

  async #replace(path: string, make: (beside: string) => Promise<void>): Promise<void> {
    const place = join(this.#root, path)
    const beside = besideName(place)
    await localStep(place, () => make(beside))
    try {
      await localStep(place, () => rename(beside, place))
    } catch (error) {
      await unlink(beside)
      throw error
    }
    this.result.entries++
  }

  /** No directory on the path may be a link: it could lead anywhere, and an earlier entry may have created it. */
  async #checkParent(path: string): Promise<void> {
    const parent = dirname(path)
    if (parent === this.#knownDirectory || path === "" || parent === ".") return
    let way = this.#root
    for (const part of parent.split("/")) {
      way = join(way, part)
      const place = way
      const found = await localStep(place, () => lstat(place))
      if (!found.isDirectory())
        throw new AppError("conflict", `${way} exists and is not a directory`, {
          hint: "nothing is written through links; copy to an empty place",
        })
    }
    this.#knownDirectory = parent
  }
}

/**
 * Allows `..` at the start only, where it can be counted: after a name, `..` would leave the directory that a link
 * of that name points to, wherever that is.
 */
function leadsInside(path: string, target: string): boolean {
  if (target === "" || target.startsWith("/")) return false
  const parts = target.split("/").filter((part) => part !== "" && part !== ".")
  const climbs = parts.findIndex((part) => part !== "..")
  const names = climbs < 0 ? [] : parts.slice(climbs)
  if (names.includes("..")) return false
  const reached = posix.normalize(posix.join(posix.dirname(path), target))
  return reached !== ".." && !reached.startsWith("../")
}
