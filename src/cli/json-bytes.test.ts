/** Bytes as lines of JSON: nothing is lost, whatever the pieces. */

import { expect, test } from "bun:test"
import fc from "fast-check"
import { linesOf } from "./json-bytes.ts"

async function* cut(bytes: Uint8Array, sizes: readonly number[]): AsyncGenerator<Uint8Array> {
  let at = 0
  for (const size of sizes) {
    yield bytes.subarray(at, at + size)
    at += size
  }
  yield bytes.subarray(at)
}

const bytesOf = async (bytes: Uint8Array, sizes: readonly number[]) => {
  const lines = await Array.fromAsync(linesOf(cut(bytes, sizes), 100))
  const parts = lines.map(({ encoding, data }) => Buffer.from(data, encoding))
  let at = 100
  for (const [index, { offset }] of lines.entries()) {
    expect(offset).toBe(at)
    at += parts[index]?.length ?? 0
  }
  return { lines, whole: Buffer.concat(parts) }
}
const sizes = fc.array(fc.nat(5), { maxLength: 20 })

test("text stays text, however it is cut", () =>
  fc.assert(
    fc.asyncProperty(fc.string({ unit: "grapheme" }), sizes, async (text, cuts) => {
      const { lines, whole } = await bytesOf(Buffer.from(text), cuts)
      expect(lines.every(({ encoding }) => encoding === "utf8")).toBe(true)
      expect(whole.toString()).toBe(Buffer.from(text).toString())
    }),
  ))

test("any bytes come back as they were", () =>
  fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 60 }), sizes, async (bytes, cuts) => {
      expect((await bytesOf(bytes, cuts)).whole.equals(Buffer.from(bytes))).toBe(true)
    }),
  ))
