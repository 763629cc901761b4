/** Answers that the proxy gives itself. Their JSON has the shape of the API's errors, as far as applicable. */

import type { ErrorCode } from "@bhatti/contract/errors"
import { listOf, type RequestHead } from "./head.ts"

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
  501: { reason: "Not Implemented", code: "invalid" },
  502: { reason: "Bad Gateway", code: "unavailable" },
  503: { reason: "Service Unavailable", code: "unavailable" },
  504: { reason: "Gateway Timeout", code: "unavailable" },
  505: { reason: "HTTP Version Not Supported", code: "invalid" },
}

/** `request` is the refused request, if it could be parsed: a browser gets a page, other clients get JSON. */
export function refusalBytes(
  refusal: Refusal,
  { keepAlive, request }: { keepAlive: boolean; request?: RequestHead | undefined },
): Buffer {
  const { reason, code } = words[refusal.status] ?? { reason: "Error", code: "internal" }
  const isPage = request !== undefined && wantsPage(request)
  const body = isPage ? page(`${refusal.status} ${reason}`, refusal) : json(code, refusal)
  const lines = [
    `HTTP/1.1 ${refusal.status} ${reason}`,
    `Content-Type: ${isPage ? "text/html; charset=utf-8" : "application/json"}`,
    `Content-Length: ${Buffer.byteLength(body)}`,
    "Cache-Control: no-store",
    `Connection: ${keepAlive ? "keep-alive" : "close"}`,
  ]
  if (isPage) lines.push("Content-Security-Policy: default-src 'none'")
  if (refusal.retryAfterSec !== undefined) lines.push(`Retry-After: ${refusal.retryAfterSec}`)
  return Buffer.from(`${lines.join("\r\n")}\r\n\r\n${request?.method === "HEAD" ? "" : body}`)
}

/** Browsers ask for HTML when they open a page; programs and scripts accept anything. */
function wantsPage({ headers }: RequestHead): boolean {
  return listOf(headers, "accept").some((type) => /^text\/html\s*(;|$)/.test(type))
}

function json(code: ErrorCode, { message, hint, retryAfterSec }: Refusal): string {
  return `${JSON.stringify({
    error: message,
    code,
    message,
    hint: hint ?? null,
    retryable: retryAfterSec !== undefined,
  })}\n`
}

function page(title: string, { message, hint, retryAfterSec }: Refusal): string {
  const again = retryAfterSec === undefined ? undefined : `load this again in ${retryAfterSec} s`
  const paragraphs = [message, hint, again].filter((text) => text !== undefined)
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>${title}</title>
<h1>${title}</h1>
${paragraphs.map((text) => `<p>${Bun.escapeHTML(text)}</p>`).join("\n")}
</html>
`
}
