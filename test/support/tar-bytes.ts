/** Tar archives byte by byte, whole and broken. Text is latin1, so that any byte can be in it. */

export type TarEntry = {
  name: string
  /** The type flag; default: a file. */
  type?: string
  mode?: number
  uid?: number
  gid?: number
  mtime?: number
  content?: Uint8Array | string
  linkname?: string
  major?: number
  minor?: number
  /** Records of an extended header before this one. */
  pax?: Record<string, string>
  /** The size that the header claims, in octal or, beyond its range or on request, in base 256. */
  size?: number
  isBase256?: boolean
  /** Writes these bytes into the finished header; the checksum is made after. */
  patch?: { at: number; bytes: string }[]
  /** The checksum is wrong by that much. */
  checksumError?: number
  /** GNU's header for names longer than 100 bytes. */
  isGnuLong?: boolean
}

const blockBytes = 512

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc((blockBytes - (bytes.length % blockBytes)) % blockBytes)])
}

function number(value: number, length: number, isBase256 = false): Buffer {
  const text = Math.abs(value).toString(8)
  if (!isBase256 && value >= 0 && text.length < length)
    return Buffer.from(`${text.padStart(length - 1, "0")}\0`)
  const bytes = Buffer.alloc(length, value < 0 ? 0xff : 0)
  let rest = BigInt(value)
  for (let at = length - 1; at > 0; at--, rest >>= 8n) bytes[at] = Number(rest & 0xffn)
  bytes[0] = value < 0 ? 0xff : 0x80
  return bytes
}

function header(entry: TarEntry, size: number): Buffer {
  const block = Buffer.alloc(blockBytes)
  const put = (at: number, length: number, bytes: Uint8Array) => block.set(bytes.subarray(0, length), at)
  put(0, 100, Buffer.from(entry.name, "latin1"))
  put(100, 8, number(entry.mode ?? 0o644, 8))
  put(108, 8, number(entry.uid ?? 0, 8))
  put(116, 8, number(entry.gid ?? 0, 8))
  put(124, 12, number(size, 12, entry.isBase256))
  put(136, 12, number(entry.mtime ?? 0, 12))
  put(156, 1, Buffer.from(entry.type ?? "0", "latin1"))
  put(157, 100, Buffer.from(entry.linkname ?? "", "latin1"))
  put(257, 8, Buffer.from("ustar\x0000"))
  if (entry.isGnuLong) put(257, 8, Buffer.from("ustar  \0"))
  put(329, 8, number(entry.major ?? 0, 8))
  put(337, 8, number(entry.minor ?? 0, 8))
  for (const { at, bytes } of entry.patch ?? []) put(at, bytes.length, Buffer.from(bytes, "latin1"))
  block.fill(0x20, 148, 156)
  const sum = block.reduce((total, byte) => total + byte, 0) + (entry.checksumError ?? 0)
  put(148, 8, Buffer.from(`${sum.toString(8).padStart(6, "0")}\0 `))
  return block
}

function paxRecord(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`
  let length = rest.length
  while (`${length}`.length + rest.length !== length) length = `${length}`.length + rest.length
  return `${length}${rest}`
}

export function tarEntry(entry: TarEntry): Buffer {
  const content = Buffer.from(
    typeof entry.content === "string" ? Buffer.from(entry.content, "latin1") : (entry.content ?? []),
  )
  const before: Buffer[] = []
  const long = (type: string, text: string) => {
    const bytes = Buffer.from(`${text}\0`, "latin1")
    before.push(header({ name: "././@LongLink", type, isGnuLong: true }, bytes.length), padded(bytes))
  }
  const pax: Record<string, string> = { ...entry.pax }
  if (entry.isGnuLong) {
    if (entry.name.length > 100) long("L", entry.name)
    if ((entry.linkname ?? "").length > 100) long("K", entry.linkname ?? "")
  } else {
    if (entry.name.length > 100) pax["path"] ??= entry.name
    if ((entry.linkname ?? "").length > 100) pax["linkpath"] ??= entry.linkname ?? ""
  }
  const records = Buffer.from(
    Object.entries(pax)
      .map(([key, value]) => paxRecord(key, value))
      .join(""),
    "latin1",
  )
  if (records.length > 0) before.push(header({ name: "pax", type: "x" }, records.length), padded(records))
  return Buffer.concat([...before, header(entry, entry.size ?? content.length), padded(content)])
}

/** An archive with its end. */
export function tarOf(entries: TarEntry[]): Buffer {
  return Buffer.concat([...entries.map(tarEntry), Buffer.alloc(2 * blockBytes)])
}

/** A file of 1 GiB, of which only the first part comes. */
export function endlessArchive(): ReadableStream<Uint8Array> {
  return new ReadableStream({
    start(controller) {
      controller.enqueue(
        tarEntry({ name: "endless", content: Buffer.alloc(1024 * 1024, "x"), size: 1024 ** 3 }),
      )
    },
  })
}
