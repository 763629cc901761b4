/** Any thrown value as an error that a caller can act on. A surface turns that into its answer. */

import { AppError } from "@bhatti/contract/errors"
import type { Log } from "../core/bounded-log.ts"
import { errorCodeOf } from "../lib/error-code.ts"

/** Logs the parts that the caller does not get: bugs, and the cause of other errors. */
export function loggedError(
  error: unknown,
  { requestId, user, log }: { requestId: string; user?: string | undefined; log: Log },
): AppError {
  const known = toAppError(error)
  if (known.code === "internal") log.error({ request_id: requestId, user, error }, "internal error")
  else if (known.cause !== undefined)
    log.warn({ request_id: requestId, user, error: known, cause: known.cause }, known.message)
  return known
}

export function toAppError(error: unknown): AppError {
  if (error instanceof AppError) return error
  // A clean-up failed as well: the caller gets the original error, the log has both.
  if (error instanceof SuppressedError) {
    return toAppError(error.suppressed).but({ cause: error })
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
      reason: "host_disk_full",
      hint: "free some space in the data directory's file system, then try again",
    })
  }
  return new AppError("internal", "internal error", { cause: error })
}
