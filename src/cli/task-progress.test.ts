/** Bars of layers. */

import { expect, test } from "bun:test"
import { barOf } from "./task-progress.ts"

const digest = `sha256:${"a".repeat(64)}`
const widthOf = (bytes: number, total: number) => /\[(=*)( *)\]/.exec(barOf({ digest, bytes, total }))

test("a layer's bar is full, and no wider, when there are more bytes than were announced", () => {
  expect(widthOf(0, 0)?.[1]).toHaveLength(24)
  expect(
    widthOf(5, 10)
      ?.slice(1)
      .map((part) => part.length),
  ).toEqual([12, 12])
  for (const [bytes, total] of [
    [11, 10],
    [5000, 1],
  ] as const)
    expect(
      widthOf(bytes, total)
        ?.slice(1)
        .map((part) => part.length),
    ).toEqual([24, 0])
})
