/** The only place that turns an error into an HTTP answer. */

import { type AppError, errorStatus } from "@bhatti/contract/errors"
import type { ErrorBody } from "@bhatti/contract/system"
import type { Log } from "../core/bounded-log.ts"
import { loggedError } from "../gate/errors.ts"
import { UnsatisfiableRange } from "./file-range.ts"

export function errorResponse(
  error: unknown,
  options: { requestId: string; user?: string | undefined; log: Log },
): Response {
  const { requestId } = options
  const known = loggedError(error, options)
  // Internal details belong in the log; the caller gets the request id to ask about.
  const message = known.code === "internal" ? "internal error" : known.message
  const body: ErrorBody = {
    error: message,
    code: known.code,
    message,
    hint: known.code === "internal" ? `the daemon's log has it under ${requestId}` : (known.hint ?? null),
    ...(known.subject && { subject: known.subject }),
    ...(known.reason !== undefined && { reason: known.reason }),
    retryable: known.retryable,
    request_id: requestId,
  }
  const isRange = known instanceof UnsatisfiableRange
  const status = isRange ? 416 : errorStatus[known.code]
  const retryAfterSec = known.retryAfterSec ?? (status === 429 ? quotaRetryAfterSec : undefined)
  const headers = {
    ...(retryAfterSec !== undefined && { "retry-after": `${retryAfterSec}` }),
    ...(isRange && { "content-range": `bytes */${known.size}` }),
  }
  return Response.json(body, { status, headers })
}

/** A quota has room again when the user frees something, which cannot be predicted. */
const quotaRetryAfterSec = 60

/** The parts of an error that a message in a stream has. */
export function errorParts({ code, hint, subject, reason, retryable }: AppError) {
  return {
    code,
    hint: hint ?? null,
    ...(subject && { subject }),
    ...(reason !== undefined && { reason }),
    retryable,
  }
}
