/** A tree as lines of text, one for each name, to compare: of a disk file, or of a directory of this host. */

import { lstat, readFile, readlink } from "node:fs/promises"
import { runProgram } from "../../src/lib/program.ts"
import { type DiskEntry, kinds, readExt4Tree } from "./ext4-tree.ts"
import { digestOf } from "./oci-layout.ts"

/** Longer files are compared by their size alone, as the reader of disks has them. */
const contentBytesMax = 64 * 1024 * 1024

export function diskLines(disk: string): string[] {
  return [...readExt4Tree(disk)].map(([name, entry]) => lineOf(name, entry)).sort()
}

function lineOf(
  name: string,
  { kind, mode, uid, gid, seconds, links, size, content, device, attributes }: DiskEntry,
): string {
  const isFolder = kind === "directory"
  return [
    name,
    kind,
    mode.toString(8),
    uid,
    gid,
    seconds,
    isFolder ? "" : links,
    isFolder ? "" : size,
    content === undefined ? "" : digestOf(content),
    device ? `${device.major}:${device.minor}` : "",
    Object.entries(attributes)
      .map(([key, value]) => [key, isList(key) ? programList(value) : Buffer.from(value, "latin1")] as const)
      .map(([key, value]) => `${key}=${value.toString("hex")}`)
      .sort(),
  ].join(" ")
}

export async function directoryLines(top: string): Promise<string[]> {
  const found = await runProgram(["find", top, "-print0"], { deadlineMs: 30_000 })
  const paths = found
    .toString("latin1")
    .split("\0")
    .filter(Boolean)
    .map((path) => Buffer.from(path, "latin1"))
  const attributes = await attributesBelow(top)
  const lines: string[] = []
  for (const path of paths) {
    const about = await lstat(path)
    const name = path.toString("latin1").slice(top.length + 1)
    const kind = kinds[(about.mode >> 12) as keyof typeof kinds]
    const isDevice = kind === "char" || kind === "block"
    lines.push(
      lineOf(name, {
        inode: about.ino,
        kind,
        mode: about.mode & 0o7777,
        uid: about.uid,
        gid: about.gid,
        links: about.nlink,
        seconds: Math.floor(about.mtimeMs / 1000),
        nanoseconds: 0,
        size: about.size,
        ...(kind === "file" && about.size <= contentBytesMax && { content: await readFile(path) }),
        ...(kind === "symlink" && { content: Buffer.from(await readlink(path)) }),
        ...(isDevice && { device: { major: about.rdev >> 8, minor: about.rdev & 0xff } }),
        attributes: attributes.get(name) ?? {},
      }),
    )
  }
  return lines.sort()
}

async function attributesBelow(top: string): Promise<Map<string, Record<string, string>>> {
  const text = (
    await runProgram(["getfattr", "-R", "-P", "-h", "-d", "-m", "-", "-e", "hex", "."], {
      cwd: top,
      deadlineMs: 30_000,
    })
  ).toString("latin1")
  return new Map(
    text.split("\n\n").map((part) => {
      const [head = "", ...lines] = part.split("\n")
      const pairs = lines.filter(Boolean).map((line) => line.split("=0x") as [string, string])
      return [
        head.replace("# file: ", ""),
        Object.fromEntries(pairs.map(([key, value]) => [key, Buffer.from(value, "hex").toString("latin1")])),
      ]
    }),
  )
}

function isList(key: string): boolean {
  return key.startsWith("system.posix_acl_")
}

/** A disk has access lists in a shorter form than programs get. */
function programList(value: string): Buffer {
  const raw = Buffer.from(value, "latin1")
  if (raw.readUInt32LE(0) !== 1) return raw
  const parts = [Buffer.from([2, 0, 0, 0])]
  for (let at = 4; at < raw.length; ) {
    const hasId = [2, 8].includes(raw.readUInt16LE(at))
    parts.push(raw.subarray(at, at + 4), hasId ? raw.subarray(at + 4, at + 8) : Buffer.alloc(4, 0xff))
    at += hasId ? 8 : 4
  }
  return Buffer.concat(parts)
}
