/** Tells the errors of a command that could not start from the daemon's own refusals; hints about keys. */

import { AppError } from "@bhatti/contract/errors"

/** The next step for a key that cannot be used. */
const hintsOfReasons: Readonly<Record<string, string>> = {
  rebooted:
    "the command may have run before the sandbox booted; look at what it has done, then use a new key",
  forgotten: "the command has run and its result is not kept any more; use a new key to run it again",
  key_reused: "use a new key for each command",
}

/** A guest's agent of an earlier version gives no reasons. */
export function withStartReason(error: unknown): unknown {
  if (!(error instanceof AppError)) return error
  const { code, reason } = error
  if (reason === undefined)
    return code === "not_found" || code === "invalid" ? error.but({ reason: "not_started" }) : error
  const hint = code === "conflict" ? hintsOfReasons[reason] : undefined
  return hint === undefined ? error : error.but({ hint })
}
