/** Parts of files, however their bytes come. */

import { expect, test } from "bun:test"
import { cutSection, type Section } from "./lines.ts"

const text = "one\ntwo\n\nfour\nfünf"

async function cut(section: Section, pieceBytes: number): Promise<string> {
  const bytes = Buffer.from(text)
  async function* pieces() {
    for (let at = 0; at < bytes.length; at += pieceBytes) yield bytes.subarray(at, at + pieceBytes)
  }
  return Buffer.concat(await Array.fromAsync(cutSection(pieces(), section))).toString()
}

test.each([
  [{}, text],
  [{ offset: 1 }, text],
  [{ offset: 2 }, "two\n\nfour\nfünf"],
  [{ offset: 5 }, "fünf"],
  [{ offset: 6 }, ""],
  [{ limit: 1 }, "one\n"],
  [{ limit: 99 }, text],
  [{ offset: 2, limit: 2 }, "two\n\n"],
  [{ offset: 4, limit: 2 }, "four\nfünf"],
  [{ offset: 5, limit: 1 }, "fünf"],
  [{ maxBytes: 5 }, "one\nt"],
  [{ offset: 2, limit: 3, maxBytes: 6 }, "two\n\nf"],
] as [Section, string][])("%j", async (section, expected) => {
  for (const pieceBytes of [1, 2, 3, 4, 5, 7, 100]) expect(await cut(section, pieceBytes)).toBe(expected)
})

test("what comes behind it is not read", async () => {
  let pieces = 0
  async function* endless() {
    for (;;) {
      pieces++
      yield Buffer.from("a\nb\n")
    }
  }
  expect(
    Buffer.concat(await Array.fromAsync(cutSection(endless(), { offset: 3, limit: 3 }))).toString(),
  ).toBe("a\nb\na\n")
  expect(pieces).toBe(3)
})
