/** Errors as e2b's SDKs read them: the status is in the body too, since some decide by that alone. */

import { AppError, errorStatus } from "@bhatti/contract/errors"
import type { Log } from "../core/bounded-log.ts"
import { loggedError } from "../gate/errors.ts"

export function errorResponse(
  error: unknown,
  options: { requestId: string; user?: string | undefined; log: Log },
): Response {
  const known = loggedError(error, options)
  const code = errorStatus[known.code]
  const isBug = known.code === "internal"
  const hint = known.hint === undefined ? "" : `; ${known.hint}`
  const message = isBug
    ? `internal error; the daemon's log has it under ${options.requestId}`
    : known.message + hint
  const { retryAfterSec } = known
  const headers = retryAfterSec === undefined ? {} : { "retry-after": `${retryAfterSec}` }
  return Response.json({ code, message }, { status: code, headers })
}

/** An unknown user of the guest is the SDKs' authentication error. */
export function fileError(error: unknown, options: Parameters<typeof errorResponse>[1]): Response {
  const isUnknownUser = error instanceof AppError && error.reason === "no_user"
  return errorResponse(isUnknownUser ? error.but({ code: "unauthenticated" }) : error, options)
}

export function noSuchEndpoint(method: string, path: string): AppError {
  return new AppError("not_found", `no such endpoint: ${method} ${path}`)
}
