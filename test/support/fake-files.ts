/** Files of a guest that is played, in memory: paths, errors and links as lohar has them (`agent/filesystem.go`). */

import { posix } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import type { GuestAttributes, GuestFile } from "@bhatti/contract/guest"
import { extract, type Header, pack } from "tar-stream"

type Node = Pick<GuestFile, "type" | "mode" | "owner" | "target" | "attributes"> & { bytes: Uint8Array }
export type NewFile = Partial<Omit<Node, "bytes">> & { bytes?: string | Uint8Array }

const linksMax = 8
const noBytes = new Uint8Array()

export class FakeFiles {
  readonly #nodes = new Map<string, Node>()

  constructor() {
    this.#nodes.set("/", { type: "directory", mode: "0755", owner: "root", target: null, bytes: noBytes })
    for (const path of ["/workspace", "/tmp"]) this.add(path, { type: "directory", mode: "0755" })
  }

  add(path: string, { bytes = "", ...fields }: NewFile): void {
    const own = { type: "file", mode: "0644", owner: "lohar", target: null, ...fields } as const
    const at = absolute(path)
    for (let above = posix.dirname(at); !this.#nodes.has(above); above = posix.dirname(above))
      this.#nodes.set(above, { type: "directory", mode: "0755", owner: "root", target: null, bytes: noBytes })
    this.#nodes.set(at, { ...own, bytes: typeof bytes === "string" ? Buffer.from(bytes) : bytes })
  }

  copy(): FakeFiles {
    const copy = new FakeFiles()
    for (const [path, node] of this.#nodes) copy.#nodes.set(path, node)
    return copy
  }

  has(path: string): boolean {
    return this.#nodes.has(absolute(path))
  }

  setAttributes(path: string, set: GuestAttributes, remove: readonly string[]): void {
    const node = this.#find(absolute(path), path)
    const kept = Object.entries(node.attributes ?? {}).filter(([name]) => !remove.includes(name))
    this.#nodes.set(absolute(path), { ...node, attributes: { ...Object.fromEntries(kept), ...set } })
  }

  isDirectory(path: string): boolean {
    return this.#nodes.get(absolute(path))?.type === "directory"
  }

  stat(path: string): GuestFile {
    const at = absolute(path)
    return this.#describe(at, this.#find(at, path))
  }

  read(path: string): { file: GuestFile; bytes: Uint8Array } {
    let at = absolute(path)
    for (let links = 0; links < linksMax; links++) {
      const node = this.#find(at, path)
      if (node.type === "directory") throw new AppError("invalid", `"${path}": is a directory`)
      if (node.target === null) return { file: this.#describe(at, node), bytes: node.bytes }
      at = posix.resolve(posix.dirname(at), node.target)
    }
    throw new AppError("invalid", `"${path}": too many levels of symbolic links`)
  }

  list(path: string): GuestFile[] {
    const at = absolute(path)
    if (this.#find(at, path).type !== "directory") throw new AppError("invalid", `"${path}": not a directory`)
    return this.#below(at)
      .filter((one) => posix.dirname(one) === at)
      .sort()
      .map((one) => this.#describe(one, this.#find(one, one)))
  }

  remove(path: string, { recursive }: { recursive: boolean }): void {
    const at = absolute(path)
    this.#find(at, path)
    const below = this.#below(at)
    if (below.length > 0 && !recursive) throw new AppError("conflict", `"${path}": directory not empty`)
    for (const one of [at, ...below]) this.#nodes.delete(one)
  }

  move(from: string, to: string): void {
    const source = absolute(from)
    const target = this.#nodes.get(absolute(to))
    const into =
      target?.type === "directory" ? posix.join(absolute(to), posix.basename(source)) : absolute(to)
    this.#nodes.set(into, this.#find(source, from))
    this.#nodes.delete(source)
    for (const one of this.#below(source)) {
      this.#nodes.set(into + one.slice(source.length), this.#find(one, one))
      this.#nodes.delete(one)
    }
  }

  /** A tar stream of what is there. */
  pack(path: string): AsyncIterable<Uint8Array> {
    const at = absolute(path)
    this.#find(at, path)
    const packing = pack()
    for (const one of [at, ...this.#below(at).sort()]) {
      const { type, mode, target, bytes } = this.#find(one, one)
      const name = posix.relative(posix.dirname(at), one)
      const about = { name, mode: Number.parseInt(mode, 8), mtime: new Date(0) }
      if (type === "symlink") packing.entry({ ...about, type, linkname: target ?? "" })
      else if (type === "directory") packing.entry({ ...about, name: `${name}/`, type })
      else packing.entry(about, Buffer.from(bytes))
    }
    packing.finalize()
    return packing as AsyncIterable<unknown> as AsyncIterable<Uint8Array>
  }

  #find(at: string, path: string): Node {
    const found = this.#nodes.get(at)
    if (found) return found
    throw new AppError("not_found", `no file "${path}"`)
  }

  #below(at: string): string[] {
    const prefix = at === "/" ? "/" : `${at}/`
    return [...this.#nodes.keys()].filter((one) => one !== at && one.startsWith(prefix))
  }

  #describe(at: string, { bytes, ...node }: Node): GuestFile {
    const version = Bun.hash(bytes).toString(16)
    return {
      name: posix.basename(at),
      size: bytes.length,
      ...node,
      group: "lohar",
      modifiedUnixMs: 0,
      version,
    }
  }
}

/** As lohar does: a relative path lies below the workspace. */
function absolute(path: string): string {
  return posix.resolve("/workspace", path)
}

/** Unpacks what is written to it. */
export class FakeUnpacking {
  readonly headers: Header[] = []
  readonly done: Promise<{ bytes: number; entries: number }>
  readonly #extract = extract()

  constructor(files: FakeFiles, path: string) {
    this.done = this.#unpack(files, path).catch((error: unknown) => {
      throw error instanceof AppError
        ? error
        : new AppError("invalid", `the archive cannot be read: ${error}`)
    })
    this.done.catch(() => undefined)
  }

  write(bytes: Uint8Array): void {
    this.#extract.write(Buffer.from(bytes))
  }

  end(): void {
    this.#extract.end(null)
  }

  giveUp(): void {
    this.#extract.destroy(new AppError("unavailable", "the upload was given up"))
  }

  async #unpack(files: FakeFiles, path: string): Promise<{ bytes: number; entries: number }> {
    let bytes = 0
    for await (const entry of this.#extract) {
      const { header } = entry
      this.headers.push(header)
      const chunks: Buffer[] = []
      for await (const chunk of entry) chunks.push(chunk as Buffer)
      const content = Buffer.concat(chunks)
      bytes += content.length
      const isDirectory = header.type === "directory"
      const isLink = header.type === "symlink"
      files.add(posix.join(path, header.name), {
        type: isDirectory ? "directory" : isLink ? "symlink" : "file",
        mode: (header.mode ?? 0o644).toString(8).padStart(4, "0"),
        target: isLink ? (header.linkname ?? "") : null,
        bytes: content,
      })
    }
    return { bytes, entries: this.headers.length }
  }
}
