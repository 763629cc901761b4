/** Explains in plain words why a value does not fit its shape. Shapes with their own wording keep it. */

import type { z } from "zod"
import { AppError } from "./errors.ts"

/** Returns the value in its shape; the error names the field, with `place` before it. */
export function parseInput<T extends z.ZodType>(schema: T, value: unknown, place = ""): z.infer<T> {
  const result = schema.safeParse(value, { error: wordsOf })
  if (result.success) return result.data
  const [issue] = result.error.issues
  const field = issue?.path.join(".") ?? ""
  const [ofKey] = issue?.code === "invalid_key" ? issue.issues : []
  const message = ofKey?.message ?? issue?.message ?? "invalid"
  throw new AppError("invalid", `${place}${field === "" ? "" : `${field}: `}${message}`)
}

function wordsOf(issue: z.core.$ZodRawIssue): string | undefined {
  switch (issue.code) {
    case "invalid_type":
      if (issue.input === undefined) return "is missing"
      return `must be ${nouns[issue.expected] ?? `of type ${issue.expected}`}`
    case "too_small":
      if (issue.origin === "string" && issue.minimum === 1) return "must not be empty"
      return `must ${measure(issue.origin, issue.inclusive === false ? "more than" : "at least", issue.minimum)}`
    case "too_big":
      return `must ${measure(issue.origin, issue.inclusive === false ? "less than" : "at most", issue.maximum)}`
    case "invalid_value":
      return `must be ${issue.values.map((value) => String(value)).join(" or ")}`
    case "invalid_format":
      return issue.format in formats ? `must be ${formats[issue.format]}` : undefined
    case "unrecognized_keys":
      return `unknown field ${issue.keys.map((key) => `"${key}"`).join(", ")}`
    default:
      return undefined
  }
}

const nouns: Record<string, string> = {
  string: "a text",
  number: "a number",
  int: "a whole number",
  boolean: "true or false",
  array: "a list",
  object: "an object",
  record: "an object",
}

const formats: Record<string, string> = {
  cidrv4: "an IPv4 network such as 10.0.0.0/8",
  base64: "in base64",
  datetime: "a time such as 2026-01-31T12:00:00Z",
}

const units: Record<string, string> = { string: "characters", array: "items" }

function measure(origin: string, bound: string, value: number | bigint): string {
  const unit = units[origin]
  return unit === undefined ? `be ${bound} ${value}` : `have ${bound} ${value} ${unit}`
}
