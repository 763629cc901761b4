/** Commas that end a variable or belong to its value, and variables from files. */

import { expect, test } from "bun:test"
import { AppError } from "@bhatti/contract/errors"
import fc from "fast-check"
import { parseEnvFile } from "./env-file.ts"
import { readVariables } from "./pairs.ts"
import { WrongUsage } from "./wrong-usage.ts"

const read = (text: string) => readVariables("--env", text)

test("a comma separates variables only where a name in capitals follows each", () => {
  const cases: [string, Record<string, string>][] = [
    ["API_KEY=sk-abc,NODE_ENV=prod", { API_KEY: "sk-abc", NODE_ENV: "prod" }],
    ["a=1,B=2", { a: "1", B: "2" }],
    ["A=1,A=3", { A: "3" }],
    ["DSN=host=db,port=5432", { DSN: "host=db,port=5432" }],
    ["DSN=host=db, port=5432", { DSN: "host=db, port=5432" }],
    ["LIST=a,b,c", { LIST: "a,b,c" }],
    ["list=a,b", { list: "a,b" }],
    ["A=1,2,B=3", { A: "1,2,B=3" }],
    ["A=,", { A: "," }],
    ["A=", { A: "" }],
    ["URL=http://x/?a=1,b=2", { URL: "http://x/?a=1,b=2" }],
  ]
  for (const [text, variables] of cases) expect([text, read(text)]).toEqual([text, variables])
})

test("what can be read as one variable and as two is refused, by name and without its values", () => {
  for (const text of [
    "one=secret1,two=secret2",
    "ONE=secret1,two=secret2,THREE=secret3",
    "ONE=secret1, TWO=secret2",
  ]) {
    const refused = refusalOf(() => read(text))
    expect(refused.message).toMatch(
      /^--env is unclear: (two|TWO|THREE) can be a variable of its own, or a part of (one|ONE)'s value$/,
    )
    expect(refused.hint).toContain("--env-file FILE")
    expect(`${refused.message} ${refused.hint}`).not.toContain("secret")
  }
})

test("a name that no variable can have is named", () => {
  expect(refusalOf(() => read("MY-KEY=1")).message).toBe('--env: "MY-KEY" cannot be a variable\'s name')
  expect(refusalOf(() => read("1A=1,b")).message).toContain('"1A"')
  for (const text of ["", "=x", "NOPE"]) expect(() => read(text)).toThrow("--env takes KEY=VALUE pairs")
})

const capitals = fc.stringMatching(/^[A-Z_][A-Z0-9_]{0,8}$/)

test("any variables in capitals whose values hold no comma come out as they were put in", () => {
  const value = fc.string().map((text) => text.replaceAll(",", ";"))
  fc.assert(
    fc.property(fc.dictionary(capitals, value, { minKeys: 1, noNullPrototype: true }), (variables) => {
      const text = Object.entries(variables).map(([name, value]) => `${name}=${value}`)
      expect(read(text.join(","))).toEqual(variables)
    }),
  )
})

test("whatever is given, it is one variable, or parts that are the text again, or refused", () => {
  const piece = fc.oneof(fc.string(), fc.constantFrom(",", "=", "A=", ",B=", ",c=", " "))
  fc.assert(
    fc.property(fc.array(piece), (pieces) => {
      const text = `A=${pieces.join("")}`
      let variables: Record<string, string>
      try {
        variables = read(text)
      } catch (error) {
        if (error instanceof WrongUsage) return
        throw error
      }
      if (Object.keys(variables).length === 1 && variables["A"] === text.slice(2)) return
      const parts = text.split(",").map((part) => part.split("=")[0] ?? "")
      expect(Object.keys(variables).sort()).toEqual([...new Set(parts)].sort())
      for (const name of parts) expect(name).toMatch(/^[A-Z_][A-Z0-9_]*$/)
    }),
    { numRuns: 1000 },
  )
})

test("a file's line is a variable with all that follows", () => {
  const text = [
    "# comment",
    "",
    "DSN=host=db,PORT=5432 # kept",
    "export TOKEN='a b'",
    'JSON={"a": "b"}',
    'QUOTED=" x "\r',
    `TWO="a" "b"`,
    "EMPTY=",
    "SPACE= x",
    "DSN2=a\tb",
  ].join("\n")
  expect(parseEnvFile(text, "f")).toEqual({
    DSN: "host=db,PORT=5432 # kept",
    TOKEN: "a b",
    JSON: '{"a": "b"}',
    QUOTED: " x ",
    TWO: 'a" "b',
    EMPTY: "",
    SPACE: " x",
    DSN2: "a\tb",
  })
})

test("a line that is no variable is named by its number, not by its text", () => {
  for (const [text, told] of [
    ["A=1\nsecret", "f, line 2 is not NAME=VALUE"],
    ["1A=secret", 'f, line 1: "1A" cannot be a variable\'s name'],
    ["A='secret", "f, line 1: the quote that begins the value must end on its line"],
  ] as const)
    expect(refusalOf(() => parseEnvFile(text, "f")).message).toBe(told)
})

test("any value without a line break goes through a file in quotes", () => {
  const value = fc.string({ unit: "grapheme" }).filter((text) => !/[\r\n]/.test(text))
  fc.assert(
    fc.property(fc.dictionary(capitals, value, { maxKeys: 4, noNullPrototype: true }), (variables) => {
      const lines = Object.entries(variables).map(([name, value]) => `${name}="${value}"`)
      expect(parseEnvFile(lines.join("\n"), "f")).toEqual(variables)
    }),
  )
})

function refusalOf(work: () => unknown): AppError {
  try {
    work()
  } catch (error) {
    if (error instanceof AppError) return error
    throw error
  }
  throw new Error("it was not refused")
}
