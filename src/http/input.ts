/** Requests' bodies: bounded, JSON, and of the shape that the contract says. */

import type { z } from "zod"
import { AppError } from "../contract/errors.ts"
import "../contract/wording.ts"
import { bodyChunks } from "./bytes.ts"

export async function readBody<T extends z.ZodType>(
  request: Request,
  schema: T,
  options: { bytesMax: number },
): Promise<z.infer<T>> {
  const text = await readText(request, options.bytesMax)
  return parseInput(schema, text.trim() === "" ? {} : parseJson(text))
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

async function readText(request: Request, bytesMax: number): Promise<string> {
  const tooLarge = () => new AppError("too_large", `the request's body is larger than ${bytesMax} bytes`)
  if (Number(request.headers.get("content-length") ?? 0) > bytesMax) throw tooLarge()
  const chunks: Uint8Array[] = []
  let bytes = 0
  for await (const chunk of bodyChunks(request)) {
    bytes += chunk.length
    if (bytes > bytesMax) throw tooLarge()
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString("utf8")
}
