/**
 * Writes the "newc" archive that the kernel unpacks as its initramfs. Owner root, time zero and order as given, so
 * the same entries produce the same bytes. Does not read archives.
 */

export type CpioEntry =
  | { kind: "directory"; path: string; mode: number }
  | { kind: "file"; path: string; mode: number; content: Uint8Array }
  | { kind: "character-device"; path: string; mode: number; major: number; minor: number }

const typeBits = { directory: 0o040000, file: 0o100000, "character-device": 0o020000 } as const
const alignment = 4
const trailerName = "TRAILER!!!"

export function packCpio(entries: readonly CpioEntry[]): Buffer {
  const parts: Uint8Array[] = []
  entries.forEach((entry, index) => {
    const content = entry.kind === "file" ? entry.content : new Uint8Array(0)
    parts.push(
      header({
        // Equal inode numbers would read as hard links.
        inode: index + 1,
        mode: typeBits[entry.kind] | entry.mode,
        links: entry.kind === "directory" ? 2 : 1,
        size: content.length,
        name: entry.path,
        major: entry.kind === "character-device" ? entry.major : 0,
        minor: entry.kind === "character-device" ? entry.minor : 0,
      }),
      content,
      padding(content.length),
    )
  })
  parts.push(header({ inode: 0, mode: 0, links: 1, size: 0, name: trailerName, major: 0, minor: 0 }))
  return Buffer.concat(parts)
}

type HeaderFields = {
  inode: number
  mode: number
  links: number
  size: number
  name: string
  major: number
  minor: number
}

function header(fields: HeaderFields): Buffer {
  const name = Buffer.from(`${fields.name}\0`)
  const [uid, gid, time, deviceMajor, deviceMinor, checksum] = [0, 0, 0, 0, 0, 0]
  const numbers = [
    fields.inode,
    fields.mode,
    uid,
    gid,
    fields.links,
    time,
    fields.size,
    deviceMajor,
    deviceMinor,
    fields.major,
    fields.minor,
    name.length,
    checksum,
  ]
  const text = `070701${numbers.map((number) => number.toString(16).padStart(8, "0")).join("")}`
  return Buffer.concat([Buffer.from(text), name, padding(text.length + name.length)])
}

function padding(length: number): Buffer {
  return Buffer.alloc((alignment - (length % alignment)) % alignment)
}
