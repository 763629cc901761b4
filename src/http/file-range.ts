/** Range and conditional requests for a file: headers of the request in, a section of the file and headers out. */

import { AppError } from "@bhatti/contract/errors"
import type { FileSection, GuestFile } from "@bhatti/contract/guest"
import { type ByteRange, parseRange, sectionOfRange } from "../rules/byte-range.ts"

/** The file has none of the bytes that the range names. */
export class UnsatisfiableRange extends AppError {
  readonly size: number

  constructor(size: number) {
    super("invalid", `the range begins behind the end of the file, which has ${size} bytes`, {
      hint: "ask for bytes below the size, or for the whole file",
    })
    this.size = size
  }
}

export type RangeRequest = {
  range: ByteRange
  /** The range holds only for this version of the file. */
  ifVersion: string | null
}

/** Returns undefined if the client asks for the whole file. Several ranges are answered with the whole file. */
export function rangeOf(headers: Headers): RangeRequest | undefined {
  const range = parseRange(headers.get("range"))
  return range && { range, ifVersion: headers.get("if-range") }
}

/**
 * Returns undefined for the whole file: the file is another one than the client has a part of, or its size is
 * unknown, as that of the kernel's own files. A date in If-Range matches no version, since it is too coarse.
 */
export function chooseSection(request: RangeRequest, file: GuestFile): FileSection | undefined {
  const { range, ifVersion } = request
  if (file.size === 0 || (ifVersion !== null && ifVersion !== etagOf(file))) return undefined
  const section = sectionOfRange(range, file.size)
  if (!section) throw new UnsatisfiableRange(file.size)
  return section
}

export function isKnownTo(headers: Headers, file: GuestFile): boolean {
  const known =
    headers
      .get("if-none-match")
      ?.split(",")
      .map((one) => one.trim().replace(/^W\//, "")) ?? []
  const etag = etagOf(file)
  return etag !== undefined && (known.includes(etag) || known.includes("*"))
}

export function fileHeaders(file: GuestFile): Record<string, string> {
  const etag = file.type === "file" ? etagOf(file) : undefined
  return {
    "accept-ranges": "bytes",
    "x-file-size": `${file.size}`,
    "x-file-mode": file.mode,
    ...(etag !== undefined && { etag }),
  }
}

/** The length is that of the answer: a file that became shorter breaks the connection. */
export function sectionHeaders({ size }: GuestFile, { offset = 0, limit = 0 }: FileSection) {
  return { "content-range": `bytes ${offset}-${offset + limit - 1}/${size}`, "content-length": `${limit}` }
}

function etagOf({ version }: GuestFile): string | undefined {
  return version === null ? undefined : `"${version}"`
}
