/** Tells the errors of a command that could not start from the daemon's own refusals. */

import { AppError } from "@bhatti/contract/errors"

/** A guest's agent of an earlier version gives no reasons. */
export function withStartReason(error: unknown): unknown {
  const isUnnamed = error instanceof AppError && error.reason === undefined
  return isUnnamed && (error.code === "not_found" || error.code === "invalid")
    ? error.but({ reason: "not_started" })
    : error
}
