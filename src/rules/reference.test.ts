/** References as Docker understands them, and what is none. */

import { describe, expect, test } from "bun:test"
import { checkAllowed, nameFor, parseReference, referenceText } from "./reference.ts"

const digest = `sha256:${"0a".repeat(32)}`
const home = "registry.example"

describe("a reference", () => {
  for (const [text, full, name] of [
    ["debian", "registry.example/debian:latest", "debian:latest"],
    ["debian:12", "registry.example/debian:12", "debian:12"],
    ["team/app:v1.0_x", "registry.example/team/app:v1.0_x", "team/app:v1.0_x"],
    ["localhost/app", "localhost/app:latest", "localhost/app:latest"],
    ["127.0.0.1:5000/a/b/c:1", "127.0.0.1:5000/a/b/c:1", "127.0.0.1:5000/a/b/c:1"],
    ["Other.Example/app", "other.example/app:latest", "other.example/app:latest"],
    ["registry.example/app:1", "registry.example/app:1", "app:1"],
    [`app@${digest}`, `registry.example/app@${digest}`, `app@${digest}`],
    [`app:1@${digest}`, `registry.example/app:1@${digest}`, "app:1"],
  ] as const) {
    test(`${text.slice(0, 40)} is understood as Docker does`, () => {
      const reference = parseReference(text, home)
      expect([referenceText(reference), nameFor(reference, home)]).toEqual([full, name])
    })
  }

  for (const text of [
    ...[
      "",
      "/",
      "a//b",
      "UPPER",
      "a:",
      "a@sha256:12",
      "a@md5:00",
      "-a",
      "a/../b",
      "a b",
      "http://h/a",
      "a:b:c",
    ],
    ...["h.example/", "user@h.example/app", "h.example:99999999/app", "a\nb", `a${"b".repeat(300)}`],
  ]) {
    test(`${JSON.stringify(text).slice(0, 30)} is refused`, () => {
      expect(() => parseReference(text, home)).toThrow(expect.objectContaining({ code: "invalid" }))
    })
  }

  test("a short name without a default registry says how to set it", () => {
    expect(() => parseReference("debian", undefined)).toThrow(
      expect.objectContaining({ hint: expect.stringContaining("default_registry") }),
    )
  })

  test("with a list of registries no other one is asked", () => {
    checkAllowed("any.example", [])
    checkAllowed("one.example:5000", ["One.example:5000"])
    expect(() => checkAllowed("one.example", ["one.example:5000"])).toThrow(
      expect.objectContaining({ code: "forbidden" }),
    )
  })
})
