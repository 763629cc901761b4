/** Request bodies: JSON, in the shape of the contract. */

import { AppError } from "@bhatti/contract/errors"
import { parseInput } from "@bhatti/contract/wording"
import type { z } from "zod"
import { parseStrictJson } from "../lib/strict-json.ts"

export function parseBody<T extends z.ZodType>(
  request: Request,
  text: string,
  { shape, emptyFields }: { shape: T; emptyFields?: readonly string[] | undefined },
): z.infer<T> {
  const isEmpty = text.trim() === ""
  if (!isEmpty) checkJson(request.headers.get("content-type"))
  const value = isEmpty ? {} : parseStrictJson(text)
  return parseInput(shape, emptyFields ? withoutEmpty(value, emptyFields) : value)
}

/** A missing content type is accepted; the body is parsed as strictly as any other. */
function checkJson(contentType: string | null): void {
  if (contentType === null || jsonType.test(contentType)) return
  throw new AppError("invalid", `the content type is "${contentType}", and must be application/json`, {
    hint: "send the header content-type: application/json (curl: -H 'content-type: application/json')",
  })
}

const jsonType = /^application\/json[\t ]*(;[\t ]*charset="?utf-8"?[\t ]*)?$/i

/** Removes nulls, and those of the fields that are empty. */
function withoutEmpty(value: unknown, fields: readonly string[]): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value
  const saysNothing = (one: unknown) => !one || (typeof one === "object" && Object.keys(one).length === 0)
  const kept = Object.entries(value).filter(
    ([name, one]) => one !== null && !(fields.includes(name) && saysNothing(one)),
  )
  return Object.fromEntries(kept)
}
