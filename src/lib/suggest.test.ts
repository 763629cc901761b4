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
