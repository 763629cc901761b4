/** What the proxy says in its own name. The shape is that of the API's errors, as far as it goes. */

import type { ErrorCode } from "../contract/errors.ts"

export type Refusal = {
  status: number
  message: string
  hint?: string
  retryAfterSec?: number
}

const words: Record<number, { reason: string; code: ErrorCode }> = {
  200: { reason: "OK", code: "internal" },
  400: { reason: "Bad Request", code: "invalid" },
  404: { reason: "Not Found", code: "not_found" },
  408: { reason: "Request Timeout", code: "invalid" },
  414: { reason: "URI Too Long", code: "too_large" },
  417: { reason: "Expectation Failed", code: "invalid" },
  421: { reason: "Misdirected Request", code: "invalid" },
  429: { reason: "Too Many Requests", code: "limit_exceeded" },
  431: { reason: "Request Header Fields Too Large", code: "too_large" },
  500: { reason: "Internal Server Error", code: "internal" },
  502: { reason: "Bad Gateway", code: "unavailable" },
  503: { reason: "Service Unavailable", code: "unavailable" },
  504: { reason: "Gateway Timeout", code: "unavailable" },
  505: { reason: "HTTP Version Not Supported", code: "invalid" },
}

export function refusalBytes(refusal: Refusal, options: { keepAlive: boolean; withBody: boolean }): Buffer {
  const { reason, code } = words[refusal.status] ?? { reason: "Error", code: "internal" }
  const body = `${JSON.stringify({
    error: refusal.message,
    code,
    message: refusal.message,
    hint: refusal.hint ?? null,
    retryable: refusal.retryAfterSec !== undefined,
  })}\n`
  const lines = [
    `HTTP/1.1 ${refusal.status} ${reason}`,
    "Content-Type: application/json",
    `Content-Length: ${Buffer.byteLength(body)}`,
    "Cache-Control: no-store",
    `Connection: ${options.keepAlive ? "keep-alive" : "close"}`,
  ]
  if (refusal.retryAfterSec !== undefined) lines.push(`Retry-After: ${refusal.retryAfterSec}`)
  return Buffer.from(`${lines.join("\r\n")}\r\n\r\n${options.withBody ? body : ""}`)
}
