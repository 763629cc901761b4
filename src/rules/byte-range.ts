/** The header Range of a request (RFC 9110, section 14): the bytes of a file that a client asks for. */

export type ByteRange =
  /** From `first` to `last`, or to the end. */
  { kind: "from"; first: number; last: number | undefined } | { kind: "last"; count: number }

/**
 * Returns undefined if the answer is the whole file, as the RFC allows for every range: no header, another unit, bad
 * syntax, or several ranges.
 */
export function parseRange(header: string | null): ByteRange | undefined {
  const [, firstText, lastText] = /^bytes=[\t ]*(\d*)-(\d*)[\t ]*$/i.exec(header ?? "") ?? []
  if (firstText === undefined || lastText === undefined) return undefined
  const last = lastText === "" ? undefined : Number(lastText)
  if (firstText === "") return last === undefined ? undefined : { kind: "last", count: last }
  const first = Number(firstText)
  return last !== undefined && last < first ? undefined : { kind: "from", first, last }
}

/** Returns where the range begins in a file of this size and how many bytes it has; undefined if it has none. */
export function sectionOfRange(
  range: ByteRange,
  size: number,
): { offset: number; limit: number } | undefined {
  const first = range.kind === "from" ? range.first : Math.max(0, size - range.count)
  const last = range.kind === "from" ? Math.min(range.last ?? size, size - 1) : size - 1
  return first > last ? undefined : { offset: first, limit: last - first + 1 }
}
