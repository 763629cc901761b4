/** A part of a file: some of its lines, or its first bytes. Nothing of the file is held but the piece that is being cut. */

export type Section = {
  /** The first line, counted from 1. */
  offset?: number | undefined
  /** How many lines. */
  limit?: number | undefined
  maxBytes?: number | undefined
}

const newline = 10

type Source = { readonly output: AsyncIterable<Uint8Array>; readonly result: Promise<unknown>; close(): void }

/** The part instead of the whole. To close it gives up what is not read. */
export function sectionOf(source: Source, section: Section): Source {
  source.result.catch(() => undefined)
  return {
    output: cutSection(source.output, section),
    result: Promise.resolve(),
    close: () => source.close(),
  }
}

/** Stops reading when all of it is there. */
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
