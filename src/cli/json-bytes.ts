/** Bytes as lines of JSON: as text where they are UTF-8, otherwise in base64. */

import type { Output } from "./output.ts"

/** The longest UTF-8 character has one byte more. */
const unfinishedBytesMax = 3

type Line = { offset: number; encoding: "utf8" | "base64"; data: string }

/** Each piece becomes a line, with its offset behind `offset`; a character that two pieces share is not split. */
export async function* linesOf(pieces: AsyncIterable<Uint8Array>, offset = 0): AsyncGenerator<Line> {
  let rest: Uint8Array = new Uint8Array()
  for await (const piece of pieces) {
    const bytes = rest.length === 0 ? piece : Buffer.concat([rest, piece])
    const end = bytes.length - unfinishedBytes(bytes)
    if (end > 0) yield lineOf(bytes.subarray(0, end), offset)
    offset += end
    rest = bytes.slice(end)
  }
  if (rest.length > 0) yield lineOf(rest, offset)
}

export async function printJsonBytes(
  pieces: AsyncIterable<Uint8Array>,
  out: Output,
  offset: number,
): Promise<void> {
  out.stdout.prepare()
  for await (const line of linesOf(pieces, offset)) await out.result(JSON.stringify(line))
}

function lineOf(bytes: Uint8Array, offset: number): Line {
  try {
    const data = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes)
    return { offset, encoding: "utf8", data }
  } catch {
    return { offset, encoding: "base64", data: Buffer.from(bytes).toString("base64") }
  }
}

/** The bytes of a character at the end whose last bytes are still to come. */
function unfinishedBytes(bytes: Uint8Array): number {
  for (let count = 1; count <= Math.min(unfinishedBytesMax, bytes.length); count++) {
    const byte = bytes[bytes.length - count] ?? 0
    if (byte < 0x80) return 0
    if (byte < 0xc0) continue
    const needed = byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4
    return needed > count ? count : 0
  }
  return 0
}
