/** The strict JSON parser refuses some texts, and accepts all others. */

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
  ['{"cmd":["true"],"cmd":["false"]}', '"cmd" appears twice in one object'],
  ['{"a":1,"b":2,"a":1}', '"a" appears twice in one object'],
  ['{"env":{"A":"1","B":"","A":"1"}}', '"A" appears twice in one object'],
  ['[{"a":1},{"b":[{"a":1, "a" :2}]}]', '"a" appears twice in one object'],
  // The same name, written in another way.
  ['{"cmd":1,"\\u0063md":2}', '"cmd" appears twice in one object'],
  ['{"":1,"":2}', '"" appears twice in one object'],
  ['{"a\\"b":1,"a\\"b":2}', '"a"b" appears twice in one object'],
  ['{"__proto__":1,"__proto__":2}', '"__proto__" appears twice in one object'],
  ['{"env":{"A":"\\ud800"}}', "env.A: an unpaired surrogate (half of a character) is not valid text"],
  ['{"cmd":["x","a\\uDC00b"]}', "cmd.1: an unpaired surrogate (half of a character) is not valid text"],
  ['{"\\ud83d":1}', "\ufffd: an unpaired surrogate (half of a character) is not valid text"],
  ['"\\ude00\\ud83d"', "an unpaired surrogate (half of a character) is not valid text"],
  ["{", "it is not valid JSON"],
  ["", "it is not valid JSON"],
  ["{'a':1}", "it is not valid JSON"],
  ["\ufeff{}", "it is not valid JSON"],
])("%s is refused: %s", (text, message) => {
  expect(refusal(text)).toBe(message)
})

test("what is nested without end is refused before anybody walks through it", () => {
  const deep = `${"[".repeat(100_000)}"\\u0041"${"]".repeat(100_000)}`
  expect(refusal(deep)).toBe("the JSON is nested too deeply")
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
      expect(refusal(text)).toBe(`"${again}" appears twice in one object`)
    }),
  )
})
