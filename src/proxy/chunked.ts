/**
 * The chunked transfer encoding. Decoding is strict. Chunk extensions and trailers are read and dropped, since two
 * parsers in a row may not agree on them.
 *
 *   size line ── data ── CRLF ──┐        size 0: trailer lines ── empty line: done
 *       ▲───────────────────────┘
 */

import { HeadError } from "./head.ts"

/** A size line with its extensions, or one trailer line. */
const lineBytesMax = 4096
const trailerBytesMax = 16 * 1024
/** Limit on extension bytes of a whole body: more would only keep the proxy busy. */
const extensionBytesMax = 64 * 1024
const sizeLine = /^([0-9A-Fa-f]{1,13})(?:[\t ]*;[\t\x20-\x7e]*)?$/

const CR = 0x0d
const LF = 0x0a

export class ChunkDecoder {
  #state: "size" | "data" | "data_end" | "trailer" | "done" = "size"
  #line: number[] = []
  #left = 0
  #extensionBytes = 0
  #trailerBytes = 0

  get isDone(): boolean {
    return this.#state === "done"
  }

  /** The pieces of body in `bytes`, and how many bytes were used: all of them unless the body ends within. */
  decode(bytes: Uint8Array): { pieces: Uint8Array[]; used: number } {
    const pieces: Uint8Array[] = []
    let at = 0
    while (at < bytes.length && this.#state !== "done") {
      if (this.#state === "data") {
        const piece = bytes.subarray(at, at + this.#left)
        pieces.push(piece)
        at += piece.length
        this.#left -= piece.length
        if (this.#left === 0) this.#state = "data_end"
      } else {
        const line = this.#takeByte(bytes[at++] ?? 0)
        if (line !== undefined) this.#takeLine(line)
      }
    }
    return { pieces, used: at }
  }

  /** The line, when this byte ends it. */
  #takeByte(byte: number): string | undefined {
    const last = this.#line.at(-1)
    if ((last === CR) !== (byte === LF)) throw new HeadError("a chunk's line ends without CRLF")
    if (byte !== LF) {
      this.#line.push(byte)
      if (this.#line.length > lineBytesMax) throw new HeadError("a chunk's line is too long")
      return undefined
    }
    const text = String.fromCharCode(...this.#line.slice(0, -1))
    this.#line = []
    return text
  }

  #takeLine(line: string): void {
    switch (this.#state) {
      case "size": {
        const size = sizeLine.exec(line)?.[1]
        if (size === undefined) throw new HeadError("a chunk's size is malformed")
        this.#extensionBytes += line.length - size.length
        if (this.#extensionBytes > extensionBytesMax) throw new HeadError("too many chunk extensions")
        this.#left = Number.parseInt(size, 16)
        this.#state = this.#left === 0 ? "trailer" : "data"
        return
      }
      case "data_end":
        if (line !== "") throw new HeadError("a chunk is longer than its size")
        this.#state = "size"
        return
      default:
        this.#trailerBytes += line.length
        if (this.#trailerBytes > trailerBytesMax) throw new HeadError("the trailer is too large")
        if (line === "") this.#state = "done"
    }
  }
}

export const lastChunk: Uint8Array = Buffer.from("0\r\n\r\n")

export function encodeChunk(bytes: Uint8Array): Uint8Array {
  const size = `${bytes.length.toString(16)}\r\n`
  const chunk = Buffer.allocUnsafe(size.length + bytes.length + 2)
  chunk.write(size, 0, "latin1")
  chunk.set(bytes, size.length)
  chunk.write("\r\n", size.length + bytes.length, "latin1")
  return chunk
}
