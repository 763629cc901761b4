/** Which C library is opened where; a terminal's mode on Linux is tested in test/cli/terminal.test.ts. */

import { expect, test } from "bun:test"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { cLibraryOf } from "./c-library.ts"

test("each platform that has a command line has its own C library", () => {
  expect(cLibraryOf("linux")).toBe("libc.so.6")
  expect(cLibraryOf("darwin")).toBe("/usr/lib/libSystem.B.dylib")
})

test("the command line names no library of one system alone", () => {
  const names = readdirSync(import.meta.dir, { recursive: true, encoding: "utf8" })
  const sources = names.filter((name) => name.endsWith(".ts") && !name.includes("c-library"))
  const wrong = sources.filter((name) =>
    /["/]lib[a-zA-Z.]+\.(so|dylib)/.test(readFileSync(join(import.meta.dir, name), "utf8")),
  )
  expect(wrong).toEqual([])
})
