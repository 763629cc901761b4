/** The bytes that a Range header asks for. */

import { expect, test } from "bun:test"
import fc from "fast-check"
import { parseRange, sectionOfRange } from "./byte-range.ts"

test.each([
  ["bytes=0-4", { kind: "from", first: 0, last: 4 }],
  ["bytes=5-", { kind: "from", first: 5, last: undefined }],
  ["bytes=-5", { kind: "last", count: 5 }],
  ["BYTES= 1-1 ", { kind: "from", first: 1, last: 1 }],
  [null, undefined],
  ["", undefined],
  ["bytes", undefined],
  ["bytes=", undefined],
  ["bytes=-", undefined],
  ["bytes=4-3", undefined],
  ["bytes=0-1,3-4", undefined],
  ["bytes=+1-2", undefined],
  ["bytes=1e3-", undefined],
  ["lines=0-1", undefined],
] as const)("%j", (header, expected) => {
  expect(parseRange(header)).toEqual(expected)
})

test("a range is what slicing the file would give, and none if that is empty", () => {
  const number = fc.oneof(fc.nat(30), fc.constant(10 ** 300))
  fc.assert(
    fc.property(fc.nat(20), number, fc.option(fc.nat(30)), (size, first, last) => {
      const file = Array.from({ length: size }, (_, at) => at)
      const range = parseRange(`bytes=${BigInt(first)}-${last ?? ""}`)
      if (!range) return expect(last !== null && last < first).toBe(true)
      const section = sectionOfRange(range, size)
      const expected = file.slice(first, last === null ? undefined : last + 1)
      expect(section ? file.slice(section.offset, section.offset + section.limit) : []).toEqual(expected)
      expect(section?.limit ?? 0).toBe(expected.length)
      const suffix = sectionOfRange({ kind: "last", count: first }, size)
      const end = first === 0 ? [] : file.slice(-first)
      expect(suffix ? file.slice(suffix.offset, suffix.offset + suffix.limit) : []).toEqual(end)
    }),
  )
})
