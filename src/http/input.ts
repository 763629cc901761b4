/** Request bodies: bounded, JSON, and in the shape of the contract. */

import { AppError } from "@bhatti/contract/errors"
import { limits } from "@bhatti/contract/limits"
import { parseInput } from "@bhatti/contract/wording"
import type { z } from "zod"
import { parseStrictJson } from "../lib/strict-json.ts"

const bytesMax = limits.requestBodyBytesMax

/** Reads to the end, even if the endpoint takes no body: until then the request is incomplete. */
export async function readBody(request: Request, body: AsyncIterable<Uint8Array>): Promise<string> {
  if ((declaredLength(request) ?? 0) > bytesMax) throw tooLarge()
  const chunks: Uint8Array[] = []
  let bytes = 0
  for await (const chunk of body) {
    bytes += chunk.length
    if (bytes > bytesMax) throw tooLarge()
    chunks.push(chunk)
  }
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Buffer.concat(chunks))
  } catch (cause) {
    throw new AppError("invalid", "the request's body is not UTF-8", { cause })
  }
}

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

export function declaredLength(request: Request): number | undefined {
  const header = request.headers.get("content-length")
  return header === null ? undefined : Number(header)
}

function tooLarge(): AppError {
  return new AppError("too_large", `the request's body is larger than ${bytesMax} bytes`)
}
