/** The only place that turns a thrown error into an HTTP answer. */

import { AppError, errorStatus } from "@bhatti/contract/errors"
import type { ErrorBody } from "@bhatti/contract/system"
import type { Log } from "../core/bounded-log.ts"
import { errorCodeOf } from "../lib/error-code.ts"

export function errorResponse(
  error: unknown,
  options: { requestId: string; user?: string | undefined; log: Log },
): Response {
  const { requestId, user, log } = options
  const known = toAppError(error)
  if (known.code === "internal") log.error({ request_id: requestId, user, error }, "internal error")
  else if (known.cause !== undefined)
    log.warn({ request_id: requestId, user, error: known, cause: known.cause }, known.message)
  // Internal details belong in the log; the caller gets the request id to ask about.
  const message = known.code === "internal" ? "internal error" : known.message
  const body: ErrorBody = {
    error: message,
    code: known.code,
    message,
    hint: known.code === "internal" ? `the daemon's log has it under ${requestId}` : (known.hint ?? null),
    ...(known.subject && { subject: known.subject }),
    retryable: known.retryable,
    request_id: requestId,
  }
  const status = errorStatus[known.code]
  const retryAfterSec = known.retryAfterSec ?? (status === 429 ? quotaRetryAfterSec : undefined)
  const headers = retryAfterSec === undefined ? {} : { "retry-after": `${retryAfterSec}` }
  return Response.json(body, { status, headers })
}

/** A quota has room again when the user frees something, which cannot be predicted. */
const quotaRetryAfterSec = 60

export function toAppError(error: unknown): AppError {
  if (error instanceof AppError) return error
  // A clean-up failed as well: the caller gets the original error, the log has both.
  if (error instanceof SuppressedError) {
    const { code, message, hint, subject, retryable } = toAppError(error.suppressed)
    return new AppError(code, message, { hint, subject, retryable, cause: error })
  }
  const systemCode = errorCodeOf(error)
  if (systemCode === "EROFS") {
    return new AppError("unavailable", "the host's file system is read-only", {
      cause: error,
      hint: "the host's kernel log says why; make the data directory writable again",
    })
  }
  if (systemCode === "ENOSPC") {
    return new AppError("unavailable", "the host's disk is full", {
      cause: error,
      hint: "free some space in the data directory's file system, then try again",
    })
  }
  return new AppError("internal", "internal error", { cause: error })
}

/** The parts of an error that a message in a stream has. */
export function errorParts({ code, hint, subject }: AppError) {
  return { code, hint: hint ?? null, ...(subject && { subject }) }
}
