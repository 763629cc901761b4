/** Requests' bodies: bounded, JSON, and of the shape that the contract says. */

import type { z } from "zod"
import { AppError } from "../contract/errors.ts"
import { limits } from "../contract/limits.ts"
import "../contract/wording.ts"

const bytesMax = limits.requestBodyBytesMax

/** To its end, also of an endpoint that takes none: until then a request has not been made. */
export async function readBody(request: Request, body: AsyncIterable<Uint8Array>): Promise<string> {
  if ((declaredLength(request) ?? 0) > bytesMax) throw tooLarge()
  const chunks: Uint8Array[] = []
  let bytes = 0
  for await (const chunk of body) {
    bytes += chunk.length
    if (bytes > bytesMax) throw tooLarge()
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString("utf8")
}

export function parseBody<T extends z.ZodType>(
  text: string,
  { shape, emptyFields }: { shape: T; emptyFields?: readonly string[] | undefined },
): z.infer<T> {
  const value = text.trim() === "" ? {} : parseJson(text)
  return parseInput(shape, emptyFields ? withoutEmpty(value, emptyFields) : value)
}

/** Without nulls, and without those fields as far as they say nothing. */
function withoutEmpty(value: unknown, fields: readonly string[]): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value
  const saysNothing = (one: unknown) => !one || (typeof one === "object" && Object.keys(one).length === 0)
  const kept = Object.entries(value).filter(
    ([name, one]) => one !== null && !(fields.includes(name) && saysNothing(one)),
  )
  return Object.fromEntries(kept)
}

export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new AppError("invalid", "that is not JSON", { cause })
  }
}

export function parseInput<T extends z.ZodType>(schema: T, value: unknown): z.infer<T> {
  const result = schema.safeParse(value)
  if (result.success) return result.data
  const [issue] = result.error.issues
  const field = issue?.path.join(".") ?? ""
  const [ofKey] = issue?.code === "invalid_key" ? issue.issues : []
  const message = ofKey?.message ?? issue?.message ?? "invalid"
  throw new AppError("invalid", field === "" ? message : `${field}: ${message}`)
}

export function declaredLength(request: Request): number | undefined {
  const header = request.headers.get("content-length")
  return header === null ? undefined : Number(header)
}

function tooLarge(): AppError {
  return new AppError("too_large", `the request's body is larger than ${bytesMax} bytes`)
}
