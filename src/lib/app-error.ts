/** Any thrown value as an error that a caller can act on. */

import { AppError } from "@bhatti/contract/errors"
import { errorCodeOf } from "./error-code.ts"

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
