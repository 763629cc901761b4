/** The chunked encoding: round trips in any pieces, and what is refused. */

import { expect, test } from "bun:test"
import fc from "fast-check"
import { ChunkDecoder, encodeChunk, lastChunk } from "./chunked.ts"
import { HeadError } from "./head.ts"

function decodeAll(bytes: Buffer, cuts: number[]): { body: Buffer; isDone: boolean; rest: number } {
  const decoder = new ChunkDecoder()
  const body: Uint8Array[] = []
  const ends = [...new Set([...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length])].sort(
    (a, b) => a - b,
  )
  let at = 0
  for (const end of ends) {
    const { pieces, used } = decoder.decode(bytes.subarray(at, end))
    body.push(...pieces)
    at += used
    if (decoder.isDone) break
  }
  return { body: Buffer.concat(body), isDone: decoder.isDone, rest: bytes.length - at }
}

test("whatever is encoded is decoded, however it arrives, and nothing beyond its end is taken", () => {
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ minLength: 1, maxLength: 300 })),
      fc.array(fc.nat()),
      fc.uint8Array({ maxLength: 20 }),
      (chunks, cuts, after) => {
        const bytes = Buffer.concat([...chunks.map(encodeChunk), lastChunk, after])
        expect(decodeAll(bytes, cuts)).toEqual({
          body: Buffer.concat(chunks),
          isDone: true,
          rest: after.length,
        })
      },
    ),
  )
})

test("extensions and trailers are read and dropped", () => {
  const bytes = Buffer.from("3;a=b\r\nabc\r\n2 ; c\r\nde\r\n0;x\r\nA: b\r\nContent-Length: 3\r\n\r\nGET")
  for (let cut = 0; cut < bytes.length; cut++) {
    expect(decodeAll(bytes, [cut])).toEqual({ body: Buffer.from("abcde"), isDone: true, rest: 3 })
  }
})

test.each([
  ["no size", "\r\n"],
  ["a size that is no number", "x\r\n"],
  ["a prefixed size", "0x3\r\nabc\r\n"],
  ["a signed size", "+3\r\nabc\r\n"],
  ["a space before the size", " 3\r\nabc\r\n"],
  ["a space after the size", "3 \r\nabc\r\n"],
  ["a size beyond all numbers", "FFFFFFFFFFFFFFFF\r\n"],
  ["a bare line feed", "3\nabc\r\n"],
  ["a bare carriage return", "3\rabc\r\n"],
  ["a chunk longer than its size", "3\r\nabcd\r\n"],
  ["a chunk without its end", "3\r\nabc0\r\n\r\n"],
  ["a control character in an extension", "3;\x01\r\nabc\r\n"],
  ["a line feed in an extension", "3;a\nb\r\nabc\r\n"],
  ["an endless line", `3;${"a".repeat(5000)}`],
  ["endless extensions", `${`1;${"a".repeat(4000)}\r\na\r\n`.repeat(20)}`],
  ["an endless trailer", `0\r\n${`A: ${"b".repeat(4000)}\r\n`.repeat(5)}`],
])("%s is refused", (_what, text) => {
  expect(() => decodeAll(Buffer.from(text), [])).toThrow(HeadError)
})
