/** Errors of requests: what the caller gets, and what only the log has. */

import type { AppError } from "@bhatti/contract/errors"
import type { Log } from "../core/bounded-log.ts"
import { toAppError } from "../lib/app-error.ts"

export { toAppError }

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
