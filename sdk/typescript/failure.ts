/** Converts failures between client and daemon to the project's one error type. */

import { AppError, type ErrorCode, errorStatus, isErrorCode } from "@bhatti/contract/errors"
import type { ErrorBody } from "@bhatti/contract/system"
import { isLoopback } from "./proxy.ts"

/** An error answered by the daemon itself, as opposed to one on the way to it or on this side. */
export class Refusal extends AppError {}

/** The error of a non-2xx answer, or a guess from its status if another server answered. */
export async function failureOfResponse(response: Response, url: string): Promise<AppError> {
  const body = parseErrorBody(await response.text())
  const status = response.status
  if (body?.message !== undefined) {
    const hint = body.hint ?? hintFor(body)
    return new Refusal(body.code ?? codeOfStatus(status), body.message, {
      ...(typeof hint === "string" ? { hint } : {}),
      ...(body.retryable === undefined ? {} : { retryable: body.retryable }),
    })
  }
  return new AppError(codeOfStatus(status), `${url} answered ${status} without saying why`, {
    hint: `is ${url} the address of a bhatti daemon?`,
  })
}

/** The error if there was no answer at all. */
export function failureOfConnection(cause: unknown, url: string): AppError {
  const given: unknown = cause instanceof Error ? Reflect.get(cause, "code") : undefined
  const code = typeof given === "string" ? given : undefined
  const isRefused = code === "ConnectionRefused" || code === "ECONNREFUSED"
  const isDown = isRefused || code === undefined || code === "ECONNRESET"
  if (code === "EPROTO" && url.startsWith("https:")) {
    return new AppError("unavailable", `${url} does not answer by TLS (${code})`, {
      cause,
      hint: `a daemon without a certificate is at ${url.replace(/^https/, "http")}; bhatti setup changes the address`,
    })
  }
  if (code !== undefined && /CERT|SIGNATURE|_ISSUER/.test(code)) {
    const isOther = /ALTNAME|EXPIRED|NOT_YET/.test(code)
    return new AppError("unavailable", `the certificate of ${url} is not trusted (${code})`, {
      cause,
      retryable: false,
      hint: isOther
        ? "its operator renews it, or makes it for this name"
        : "with an authority of your own: bhatti setup --ca FILE   (or BHATTI_CA)",
    })
  }
  return new AppError(
    "unavailable",
    isRefused || code === undefined
      ? `no bhatti daemon answers at ${url}`
      : `cannot reach the bhatti daemon at ${url} (${code})`,
    {
      cause,
      hint:
        isLoopback(url) && isDown
          ? "sudo systemctl start bhatti   (or: sudo bhatti serve; for another address: bhatti setup)"
          : "check the address and the network; bhatti setup changes the address",
    },
  )
}

export function failureOfReply(cause: unknown, url: string): AppError {
  return new AppError("unavailable", `${url} answered with something else than JSON`, {
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
  const [code, hint, retryable, requestId] = [
    field("code"),
    field("hint"),
    field("retryable"),
    field("request_id"),
  ]
  return {
    ...(typeof message === "string" ? { message } : {}),
    ...(isErrorCode(code) ? { code } : {}),
    ...(typeof hint === "string" ? { hint } : {}),
    ...(typeof retryable === "boolean" ? { retryable } : {}),
    ...(typeof requestId === "string" ? { request_id: requestId } : {}),
  }
}
