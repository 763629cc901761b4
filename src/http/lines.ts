/** Sections of a file: a range of lines, or its first bytes. Only the current chunk is held in memory. */

export type Section = {
  /** First line, counted from 1. */
  offset?: number | undefined
  /** Number of lines. */
  limit?: number | undefined
  maxBytes?: number | undefined
}

const newline = 10

type Source = { readonly output: AsyncIterable<Uint8Array>; readonly result: Promise<unknown>; close(): void }

/** Returns the section as a source. Closing it aborts reading. */
export function sectionOf(source: Source, section: Section): Source {
  source.result.catch(() => undefined)
  return {
    output: cutSection(source.output, section),
    result: Promise.resolve(),
    close: () => source.close(),
  }
}

/** Stops reading when the section is complete. */
export async function* cutSection(
  bytes: AsyncIterable<Uint8Array>,
  { offset = 1, limit = Number.POSITIVE_INFINITY, maxBytes = Number.POSITIVE_INFINITY }: Section,
): AsyncGenerator<Uint8Array> {
  let linesToSkip = offset - 1
  let linesLeft = limit
  let bytesLeft = maxBytes
  for await (const piece of bytes) {
    let start = 0
    for (; linesToSkip > 0 && start < piece.length; linesToSkip--) {
      const end = piece.indexOf(newline, start)
      if (end < 0) break
      start = end + 1
    }
    if (linesToSkip > 0) continue
    let end = linesLeft === Number.POSITIVE_INFINITY ? piece.length : start
    for (; linesLeft > 0 && end < piece.length; linesLeft--) {
      const found = piece.indexOf(newline, end)
      end = found < 0 ? piece.length : found + 1
      if (found < 0) break
    }
    const part = piece.subarray(start, Math.min(end, start + bytesLeft))
    bytesLeft -= part.length
    if (part.length > 0) yield part
    if (linesLeft === 0 || bytesLeft === 0) return
  }
}
