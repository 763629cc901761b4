/** Ignore files: which paths of a build's directory are left out. */

import { expect, test } from "bun:test"
import { ignores, readIgnoreRules } from "./ignore-rules.ts"
import { patternOf } from "./path-pattern.ts"

const leftOut = (rules: string, ...paths: string[]) =>
  paths.filter((path) => ignores(readIgnoreRules(rules), path))

test("a pattern leaves out what it matches and everything below, and the last match decides", () => {
  expect(leftOut("a\n", "a", "a/b", "b/a", "ab")).toEqual(["a", "a/b"])
  expect(leftOut("/*.log/\n", "x.log", "x.log/y", "d/x.log")).toEqual(["x.log", "x.log/y"])
  expect(leftOut("**/*.log\n", "x.log", "d/e/x.log", "xlog")).toEqual(["x.log", "d/e/x.log"])
  expect(leftOut("*\n!keep\n!d/*.txt\n", "a", "keep", "keep/x", "d", "d/a.txt", "d/a.c")).toEqual([
    "a",
    "d",
    "d/a.c",
  ])
  expect(leftOut("# a\n\n ./x[0-9]? \n", "x1a", "x1", "# a")).toEqual(["x1a"])
})

test("a pattern of a path stays within a name", () => {
  expect(patternOf("a/*.c").test("a/b.c")).toBe(true)
  expect(patternOf("a/*.c").test("a/b/c.c")).toBe(false)
  expect(patternOf("**").test("a/b")).toBe(false)
  expect(patternOf("[^a-c]+\\*").test("d+*")).toBe(true)
  expect(() => patternOf("[a")).toThrow("has a [ without a ]")
})
