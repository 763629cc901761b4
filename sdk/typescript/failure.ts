/** Converts failures between client and daemon to the project's one error type. */

import { AppError, type ErrorCode, errorStatus, isErrorCode, type Subject } from "@bhatti/contract/errors"
import type { ErrorBody } from "@bhatti/contract/system"
import { type RouteName, routes } from "./routes.ts"

/** An error answered by the daemon itself, as opposed to one on the way to it or on this side. */
export class Refusal extends AppError {}

/** The error of a non-2xx answer, or a guess from its status if another server answered. */
export async function failureOfResponse(response: Response, url: string): Promise<AppError> {
  const body = parseErrorBody(await response.text())
  const status = response.status
  if (body?.message !== undefined) {
    const hint = body.hint ?? hintFor(body)
    return new Refusal(body.code ?? codeOfStatus(status), body.message, {
      hint,
      subject: body.subject as Subject | undefined,
      reason: body.reason,
      ...(body.retryable === undefined ? {} : { retryable: body.retryable }),
    })
  }
  return new AppError(codeOfStatus(status), `${url} answered ${status} without saying why`, {
    hint: `is ${url} the address of a bhatti daemon?`,
  })
}

/** Returns whether a daemon's OpenAPI description has the route. Without paths it is no description. */
export function describes(document: unknown, name: RouteName): boolean {
  const paths = typeof document === "object" && document !== null && Reflect.get(document, "paths")
  if (typeof paths !== "object" || paths === null) return true
  const [method = "", path = ""] = routes[name].split(" ")
  const known: unknown = Reflect.get(paths, path.replace(/:(\w+)/g, "{$1}"))
  return typeof known === "object" && known !== null && method.toLowerCase() in known
}

export function unknownEndpoint(name: RouteName, url: string): AppError {
  return new Refusal("unavailable", `the daemon at ${url} does not know ${routes[name]}`, {
    hint: "it is older than this program; its operator updates it, or use a program of its version",
    reason: "unknown_endpoint",
    retryable: false,
  })
}

/** Reasons why no daemon was reached. */
export type UnreachedReason =
  | "no_answer"
  | "unreachable"
  /** The address has https, its server speaks http. */
  | "no_tls"
  | "unknown_authority"
  /** The certificate is expired, or is for another name. */
  | "wrong_certificate"
  /** Requests are answered, WebSockets are not. */
  | "no_stream"

export const hints: Readonly<Record<UnreachedReason, string>> = {
  no_answer:
    "start the daemon, or check the address; a web page of another origin must be among the daemon's allowed_origins",
  unreachable: "check the address and the network",
  no_tls: "a daemon without a certificate has an address with http",
  unknown_authority: "let this program trust the authority (Node.js: NODE_EXTRA_CA_CERTS=FILE)",
  wrong_certificate: "its operator renews it, or makes it for this name",
  no_stream: "a proxy in between may block WebSockets",
}

/** The error if there was no answer at all. */
export function failureOfConnection(
  cause: unknown,
  url: string,
  hintFor: (reason: UnreachedReason) => string | undefined,
): AppError {
  const code = codeOf(cause)
  const { reason, message } = whyUnreached(code, url)
  return new AppError("unavailable", message, {
    cause,
    hint: hintFor(reason),
    ...(reason.includes("certificate") || reason === "unknown_authority" ? { retryable: false } : {}),
  })
}

function whyUnreached(code: string | undefined, url: string): { reason: UnreachedReason; message: string } {
  if (code === undefined || code === "ConnectionRefused" || code === "ECONNREFUSED")
    return { reason: "no_answer", message: `no bhatti daemon answers at ${url}` }
  if (/^(EPROTO|ERR_SSL_(WRONG_VERSION_NUMBER|PACKET_LENGTH_TOO_LONG))$/.test(code) && /^https:/.test(url))
    return { reason: "no_tls", message: `${url} does not answer by TLS (${code})` }
  if (/CERT|SIGNATURE|_ISSUER/.test(code))
    return {
      reason: /ALTNAME|EXPIRED|NOT_YET/.test(code) ? "wrong_certificate" : "unknown_authority",
      message: `the certificate of ${url} is not trusted (${code})`,
    }
  return {
    reason: code === "ECONNRESET" ? "no_answer" : "unreachable",
    message: `cannot reach the bhatti daemon at ${url} (${code})`,
  }
}

/** Returns whether the request may have reached the daemon before its connection was lost. */
export function wasLostOnTheWay(cause: unknown): boolean {
  return /^(ECONNRESET|ConnectionClosed|EPIPE|UND_ERR_SOCKET|ECONNABORTED|ETIMEDOUT)$/.test(
    codeOf(cause) ?? "",
  )
}

/** Bun puts the system's code on the error, Node.js on its cause, a browser nowhere. */
function codeOf(cause: unknown): string | undefined {
  for (let error = cause; error instanceof Error; error = error.cause) {
    const code: unknown = Reflect.get(error, "code")
    if (typeof code === "string") return code
  }
  return undefined
}

export function failureOfReply(cause: unknown, url: string): AppError {
  return new AppError("unavailable", `${url} answered with something other than JSON`, {
    cause,
    hint: `is ${url} the address of a bhatti daemon?`,
    retryable: false,
  })
}

function hintFor(body: Partial<ErrorBody>): string | undefined {
  if (body.code === "internal" && body.request_id !== undefined)
    return `the daemon's log says more about request ${body.request_id}`
  return undefined
}

function codeOfStatus(status: number): ErrorCode {
  if (status === 502 || status === 504) return "unavailable"
  for (const [code, value] of Object.entries(errorStatus))
    if (value === status && isErrorCode(code)) return code
  return status < 500 ? "invalid" : "internal"
}

/** Returns the body's fields that have the right type, or undefined if it is not an error body. */
function parseErrorBody(text: string): Partial<ErrorBody> | undefined {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return undefined
  }
  if (typeof value !== "object" || value === null) return undefined
  const field = (name: string): unknown => Reflect.get(value, name)
  const message = field("message") ?? field("error")
  const [code, hint, subject, reason, retryable, requestId] = [
    field("code"),
    field("hint"),
    field("subject"),
    field("reason"),
    field("retryable"),
    field("request_id"),
  ]
  return {
    ...(typeof message === "string" ? { message } : {}),
    ...(isErrorCode(code) ? { code } : {}),
    ...(typeof hint === "string" ? { hint } : {}),
    ...(isSubject(subject) ? { subject } : {}),
    ...(typeof reason === "string" ? { reason } : {}),
    ...(typeof retryable === "boolean" ? { retryable } : {}),
    ...(typeof requestId === "string" ? { request_id: requestId } : {}),
  }
}

function isSubject(value: unknown): value is { kind: string } {
  return typeof value === "object" && value !== null && typeof Reflect.get(value, "kind") === "string"
}
