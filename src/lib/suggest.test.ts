/** Guessing what was meant. */

import { expect, test } from "bun:test"
import { suggest } from "./suggest.ts"

test("suggestions are near misses only", () => {
  const names = ["create", "destroy", "list", "exec", "version"]
  expect(suggest("craete", names)).toBe("create")
  expect(suggest("lst", names)).toBe("list")
  expect(suggest("dest", names)).toBe("destroy")
  expect(suggest("frobnicate", names)).toBeUndefined()
  expect(suggest("x", names)).toBeUndefined()
})

test("another word is not a near miss, however few letters it has", () => {
  const names = ["start", "count", "help", "user", "--count", "--help", "--disk"]
  for (const word of ["share", "mount", "shell", "--mount", "--shell", "uses-it", "--"])
    expect([word, suggest(word, names)]).toEqual([word, undefined])
  expect(suggest("tsart", names)).toBe("start")
  expect(suggest("--hlep", names)).toBe("--help")
  expect(suggest("usr", names)).toBe("user")
})
