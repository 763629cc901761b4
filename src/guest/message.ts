/**
 * The JSON messages inside the frames; see frame.ts for the twins of this file.
 *
 * Hand-written guards check the guest's messages: exactly the fields that are used, each with its type.
 */

import { AppError, isErrorCode, isGuestReason } from "@bhatti/contract/errors"
import type { TerminalSize } from "@bhatti/contract/guest"
import { WireError } from "./frame.ts"

const encoder = new TextEncoder()
const decoder = new TextDecoder()

export function encodeJson(value: unknown): Uint8Array {
  return encoder.encode(JSON.stringify(value))
}

export const requests = {
  watch: () => ({ op: "watch" }),
  resize: ({ rows, cols }: TerminalSize) => ({ resize: { rows, cols } }),
} as const

/** Reads an answer, and the messages before it if it has any; `onMessage` returns false for a useless one. */
export type Reading<Answer> = {
  parse(value: unknown): Answer
  onMessage?(payload: Uint8Array): boolean
}

export type Result = { kind: "ok"; value: unknown } | { kind: "error"; error: AppError }

/** Reads the payload of the guest's close frame. */
export function parseResult(payload: Uint8Array): Result {
  const result = parseObject(payload)
  if (isObject(result.error)) {
    const { code, message, reason } = result.error
    if (typeof message !== "string") throw new WireError("the guest's error has no message")
    const options = isGuestReason(reason) ? { reason } : {}
    return { kind: "error", error: new AppError(isErrorCode(code) ? code : "internal", message, options) }
  }
  if (!isObject(result.ok)) throw new WireError("the guest's result is neither a success nor an error")
  return { kind: "ok", value: result.ok }
}

export function parseObject(payload: Uint8Array): Record<string, unknown> {
  let value: unknown
  try {
    value = JSON.parse(decoder.decode(payload))
  } catch (cause) {
    throw new WireError("the guest sent bad JSON", { cause })
  }
  if (!isObject(value)) throw new WireError("the guest's message is not a JSON object")
  return value
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value)
}

export function isTextOrNull(value: unknown): value is string | null {
  return value === null || typeof value === "string"
}

export function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0
}
