/** Terminal modes are restored after a program that could not do it. */

import { expect, test } from "bun:test"
import fc from "fast-check"
import { ScreenModes } from "./screen-modes.ts"

function undoOf(...pieces: string[]): string {
  const modes = new ScreenModes()
  for (const piece of pieces) modes.watch(new TextEncoder().encode(piece))
  return modes.undo()
}

test("nothing is undone where nothing was switched, or all was switched back", () => {
  expect(undoOf("plain text \x1b[1mbold\x1b[0m \x1b[2J\x1b[10;20H")).toBe("")
  expect(undoOf("\x1b[?1049h\x1b[?25l\x1b[?1h\x1b=", "\x1b[?1l\x1b>\x1b[?25h\x1b[?1049l")).toBe("")
  expect(undoOf("\x1b[?1049;25;2004h\x1b[31m\x1bc")).toBe("")
})

test("each mode has its opposite, the alternate screen last", () => {
  expect(undoOf("\x1b[?1049h\x1b[?2004h\x1b[?25l\x1b[?1003;1006h")).toBe(
    "\x1b[?25h\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[?1049l",
  )
  expect(undoOf("\x1b[31;1m")).toBe("\x1b[0m")
  expect(undoOf("\x1b[2;20r")).toBe("\x1b7\x1b[r\x1b8")
  expect(undoOf("\x1b[5 q")).toBe("\x1b[0 q")
  expect(undoOf("\x1b[>1u\x1b[>5u\x1b[<u")).toBe("\x1b[<1u")
  expect(undoOf("\x1b[>4;2m")).toBe("\x1b[>4m")
  expect(undoOf("\x1b=\x1b(0")).toBe("\x1b>\x1b(B")
})

test("it does not matter where the output is cut", () => {
  const text = "x\x1b[?1049h\x1b[?25lé\x1b[2;20r\x1b[31m\x1b=y\x1b]0;title\x07\x1b[?25h"
  const whole = undoOf(text)
  fc.assert(
    fc.property(fc.array(fc.nat(text.length), { maxLength: 6 }), (cuts) => {
      const places = [0, ...cuts.sort((one, other) => one - other), text.length]
      const pieces = places.slice(1).map((end, index) => text.slice(places[index], end))
      expect(undoOf(...pieces)).toBe(whole)
    }),
  )
})

test("no output, whatever it is, makes it fail", () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array()), (pieces) => {
      const modes = new ScreenModes()
      for (const piece of pieces) modes.watch(piece)
      expect(typeof modes.undo()).toBe("string")
    }),
  )
})
