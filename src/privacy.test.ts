/** A data directory is its owner's alone. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync, statSync } from "node:fs"
import { join } from "node:path"
import { makePrivate } from "./privacy.ts"

let parent = ""
let dataDir = ""
beforeEach(() => {
  parent = mkdtempSync("/tmp/bhatti-mode-")
  dataDir = join(parent, "data")
  mkdirSync(dataDir, { mode: 0o700 })
})
afterEach(() => rmSync(parent, { recursive: true }))

test("one that others can read is closed to them, and that is told", () => {
  chmodSync(dataDir, 0o755)
  expect(makePrivate(dataDir)).toEqual([expect.stringContaining("mode 755")])
  expect(statSync(dataDir).mode & 0o777).toBe(0o700)
  expect(makePrivate(dataDir)).toEqual([])
})

test.each([0o777, 0o770, 0o1777])("one that others may write to is refused: %o", (mode) => {
  chmodSync(dataDir, mode)
  expect(() => makePrivate(dataDir)).toThrow("others may write to the data directory")
  expect(statSync(dataDir).mode & 0o7777).toBe(mode)
})

test.skipIf(process.getuid?.() !== 0)("one of another user is refused", () => {
  chownSync(dataDir, 4321, 4321)
  expect(() => makePrivate(dataDir)).toThrow("belongs to user 4321")
})

test("a parent that others may write to is told, unless it is sticky", () => {
  chmodSync(parent, 0o777)
  expect(makePrivate(dataDir)).toEqual([expect.stringContaining(parent)])
  chmodSync(parent, 0o1777)
  expect(makePrivate(dataDir)).toEqual([])
})
