/**
 * Reads the tree of an ext4 disk file without mounting it: what a test compares is what is on the disk, and no
 * program of ours has taken part in reading it. Names are latin1, so that any byte can be in them.
 */
import { closeSync, openSync, readSync } from "node:fs"

export type DiskEntry = {
  inode: number
  kind: "file" | "directory" | "symlink" | "char" | "block" | "pipe" | "socket"
  mode: number
  uid: number
  gid: number
  links: number
  seconds: number
  nanoseconds: number
  size: number
  /** The target of a link, or the content of a file up to 64 MiB; holes read as zeros. */
  content?: Buffer
  device?: { major: number; minor: number }
  /** A directory with an index of its names. */
  isIndexed?: boolean
  /** Values as latin1; those of access lists are as the disk has them. */
  attributes: Record<string, string>
}

const contentBytesMax = 64 * 1024 * 1024
/** The upper four bits of a mode. */
export const kinds = {
  1: "pipe",
  2: "char",
  4: "directory",
  6: "block",
  8: "file",
  10: "symlink",
  12: "socket",
} as const
const spaces: Record<number, string> = {
  1: "user.",
  2: "system.posix_acl_access",
  3: "system.posix_acl_default",
  4: "trusted.",
  6: "security.",
}

/** Paths begin without a slash; the root is "". `lost+found` is the file system's own. */
export function readExt4Tree(path: string): Map<string, DiskEntry> {
  const disk = new Disk(path)
  try {
    const tree = new Map<string, DiskEntry>()
    const visit = (name: string, inode: number) => {
      const raw = disk.inode(inode)
      const entry = disk.entry(inode, raw)
      tree.set(name, entry)
      if (entry.kind !== "directory") return
      for (const [child, number] of disk.names(raw))
        if (name !== "" || child !== "lost+found") visit(name === "" ? child : `${name}/${child}`, number)
    }
    visit("", 2)
    return tree
  } finally {
    disk.close()
  }
}

class Disk {
  readonly #fd: number
  readonly #super: Buffer
  readonly #block: number

  constructor(path: string) {
    this.#fd = openSync(path, "r")
    this.#super = this.#read(1024, 1024)
    this.#block = 1024 << this.#super.readUInt32LE(24)
  }

  close(): void {
    closeSync(this.#fd)
  }

  #read(at: number, length: number): Buffer {
    const bytes = Buffer.alloc(length)
    readSync(this.#fd, bytes, 0, length, at)
    return bytes
  }

  inode(number: number): Buffer {
    const perGroup = this.#super.readUInt32LE(40)
    const size = this.#super.readUInt16LE(88)
    const group = Math.floor((number - 1) / perGroup)
    const about = this.#read(
      (this.#super.readUInt32LE(20) + 1) * this.#block + group * this.#super.readUInt16LE(254),
      64,
    )
    const table = about.readUInt32LE(8) + about.readUInt32LE(40) * 2 ** 32
    return this.#read(table * this.#block + ((number - 1) % perGroup) * size, size)
  }

  entry(number: number, raw: Buffer): DiskEntry {
    const kind = kinds[(raw.readUInt16LE(0) >> 12) as keyof typeof kinds]
    const more = raw.readUInt32LE(136)
    const size = raw.readUInt32LE(4) + (kind === "file" ? raw.readUInt32LE(108) * 2 ** 32 : 0)
    const [first, second] = [raw.readUInt32LE(40), raw.readUInt32LE(44)]
    return {
      inode: number,
      kind,
      mode: raw.readUInt16LE(0) & 0o7777,
      uid: raw.readUInt16LE(2) + raw.readUInt16LE(120) * 65536,
      gid: raw.readUInt16LE(24) + raw.readUInt16LE(122) * 65536,
      links: raw.readUInt16LE(26),
      seconds: raw.readInt32LE(16) + (more & 3) * 2 ** 32,
      nanoseconds: more >>> 2,
      size,
      ...(kind === "file" && size <= contentBytesMax && { content: this.#content(raw, size) }),
      ...(kind === "symlink" && {
        content: size < 60 ? raw.subarray(40, 40 + size) : this.#content(raw, size),
      }),
      ...((kind === "char" || kind === "block") && {
        device:
          first !== 0 || second === 0
            ? { major: (first >> 8) & 0xff, minor: first & 0xff }
            : { major: (second >> 8) & 0xfff, minor: (second & 0xff) | ((second >> 12) & 0xfff00) },
      }),
      ...(kind === "directory" && { isIndexed: (raw.readUInt32LE(32) & 0x1000) !== 0 }),
      attributes: this.#attributes(raw),
    }
  }

  #content(raw: Buffer, size: number): Buffer {
    const bytes = Buffer.alloc(size)
    for (const [logical, physical, count] of this.#extents(raw.subarray(40, 100))) {
      const at = logical * this.#block
      this.#read(physical * this.#block, count * this.#block).copy(bytes, at, 0, Math.max(0, size - at))
    }
    return bytes
  }

  #extents(node: Buffer): [logical: number, physical: number, count: number][] {
    const [count, depth] = [node.readUInt16LE(2), node.readUInt16LE(6)]
    return Array.from({ length: count }, (_, index) => node.subarray(12 + index * 12)).flatMap((one) => {
      if (depth > 0) {
        const block = one.readUInt32LE(4) + one.readUInt16LE(8) * 2 ** 32
        return this.#extents(this.#read(block * this.#block, this.#block))
      }
      const length = one.readUInt16LE(4)
      // A longer one is allocated and was never written.
      if (length > 32768) return []
      return [[one.readUInt32LE(0), one.readUInt32LE(8) + one.readUInt16LE(6) * 2 ** 32, length]]
    })
  }

  names(raw: Buffer): [string, number][] {
    const bytes = this.#content(raw, raw.readUInt32LE(4))
    const found: [string, number][] = []
    for (let at = 0; at < bytes.length; at += bytes.readUInt16LE(at + 4)) {
      const name = bytes.toString("latin1", at + 8, at + 8 + bytes.readUInt8(at + 6))
      const inode = bytes.readUInt32LE(at)
      if (inode !== 0 && name !== "." && name !== "..") found.push([name, inode])
    }
    return found
  }

  #attributes(raw: Buffer): Record<string, string> {
    const found: Record<string, string> = {}
    const inside = raw.subarray(128 + raw.readUInt16LE(128))
    if (inside.length >= 4 && inside.readUInt32LE(0) === 0xea020000)
      readAttributes(inside.subarray(4), inside.subarray(4), found)
    const block = raw.readUInt32LE(104) + raw.readUInt16LE(118) * 2 ** 32
    if (block !== 0) {
      const bytes = this.#read(block * this.#block, this.#block)
      readAttributes(bytes.subarray(32), bytes, found)
    }
    return found
  }
}

function readAttributes(list: Buffer, values: Buffer, found: Record<string, string>): void {
  for (let at = 0; at + 4 <= list.length && list.readUInt32LE(at) !== 0; ) {
    const length = list.readUInt8(at)
    const name = list.toString("latin1", at + 16, at + 16 + length)
    const start = list.readUInt16LE(at + 2)
    const key = `${spaces[list.readUInt8(at + 1)] ?? ""}${name}`
    found[key] = values.toString("latin1", start, start + list.readUInt32LE(at + 8))
    at += 16 + ((length + 3) & ~3)
  }
}
