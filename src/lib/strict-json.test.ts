/** What the strict reading of JSON refuses, and that it lets everything else pass. */

import { expect, test } from "bun:test"
import { AppError } from "@bhatti/contract/errors"
import fc from "fast-check"
import { parseStrictJson } from "./strict-json.ts"

const refusal = (text: string) => {
  try {
    return parseStrictJson(text)
  } catch (error) {
    if (!(error instanceof AppError)) throw error
    expect(error.code).toBe("invalid")
    return error.message
  }
}

test.each([
  ['{"cmd":["true"],"cmd":["false"]}', '"cmd" is there twice in one object'],
  ['{"a":1,"b":2,"a":1}', '"a" is there twice in one object'],
  ['{"env":{"A":"1","B":"","A":"1"}}', '"A" is there twice in one object'],
  ['[{"a":1},{"b":[{"a":1, "a" :2}]}]', '"a" is there twice in one object'],
  // The same name, written in another way.
  ['{"cmd":1,"\\u0063md":2}', '"cmd" is there twice in one object'],
  ['{"":1,"":2}', '"" is there twice in one object'],
  ['{"a\\"b":1,"a\\"b":2}', '"a"b" is there twice in one object'],
  ['{"__proto__":1,"__proto__":2}', '"__proto__" is there twice in one object'],
  ['{"env":{"A":"\\ud800"}}', "env.A: half of a character, an unpaired surrogate, is not valid"],
  ['{"cmd":["x","a\\uDC00b"]}', "cmd.1: half of a character, an unpaired surrogate, is not valid"],
  ['{"\\ud83d":1}', "\ufffd: half of a character, an unpaired surrogate, is not valid"],
  ['"\\ude00\\ud83d"', "half of a character, an unpaired surrogate, is not valid"],
  ["{", "that is not JSON"],
  ["", "that is not JSON"],
  ["{'a':1}", "that is not JSON"],
  ["\ufeff{}", "that is not JSON"],
])("%s is refused: %s", (text, message) => {
  expect(refusal(text)).toBe(message)
})

test("what is nested without end is refused before anybody walks through it", () => {
  const deep = `${"[".repeat(100_000)}"\\u0041"${"]".repeat(100_000)}`
  expect(refusal(deep)).toBe("that JSON is too deep")
})

test.each([
  '{"a":{"a":{"a":"a"}},"b":[{"a":1},{"a":1}]}',
  '{"a":"a","b":"a:\\"a\\":"}',
  '{"a\\\\":1,"a":2}',
  '["a","a",{"a":"a"},"a"]',
  '{"smile":"\\ud83d\\ude00"}',
  ' \n{ "a" \t: 1 }\r\n',
])("%s passes as it is", (text) => {
  expect(parseStrictJson(text)).toEqual(JSON.parse(text))
})

test("whatever is written as JSON passes and means the same", () => {
  fc.assert(
    fc.property(fc.json({ maxDepth: 6 }), (text) => {
      fc.pre(JSON.parse(text) !== undefined && text.isWellFormed() && !/\\u[dD]/.test(text))
      expect(parseStrictJson(text)).toEqual(JSON.parse(text))
    }),
  )
})

test("a member that is repeated anywhere is found", () => {
  const name = fc.string({ unit: "grapheme" })
  const object = fc.uniqueArray(name, { minLength: 1, maxLength: 6 })
  fc.assert(
    fc.property(object, fc.nat(), fc.array(fc.boolean(), { maxLength: 5 }), (names, pick, around) => {
      const again = names[pick % names.length] ?? ""
      const members = [...names, again].map((one) => `${JSON.stringify(one)}:[{}]`)
      const text = around.reduce(
        (inner, isArray) => (isArray ? `[0,${inner}]` : `{"x":${inner}}`),
        `{${members}}`,
      )
      expect(refusal(text)).toBe(`"${again}" is there twice in one object`)
    }),
  )
})
