/** Processes on the wire. */

import type { ProcessEnd } from "@bhatti/contract/guest"

/** The end of a command. */
export function viewEnd({ exitCode, signal, reason }: ProcessEnd) {
  return { exit_code: exitCode, signal, timed_out: reason === "time_limit" }
}
