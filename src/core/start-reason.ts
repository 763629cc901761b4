/** Tells the errors of a command that could not start from the daemon's own refusals; hints about keys. */

import { AppError } from "@bhatti/contract/errors"
import type { SandboxRecord } from "../store/sandboxes.ts"

export type ImageOf = Pick<SandboxRecord, "imageConfig" | "imageName" | "imageShownAs">

/** The next step for a key that cannot be used. */
const hintsOfReasons: Readonly<Record<string, string>> = {
  rebooted:
    "the command may have run before the sandbox booted; look at what it has done, then use a new key",
  forgotten: "the command has run and its result is not kept any more; use a new key to run it again",
  key_reused: "use a new key for each command",
}

/**
 * A guest's agent of an earlier version gives no reasons. `record`: its sandbox, whose image may lack what others have.
 */
export function withStartReason(error: unknown, record?: ImageOf): unknown {
  if (!(error instanceof AppError)) return error
  const { code, reason } = error
  if (reason === "no_program" && record?.imageConfig)
    return error.but({ hint: `its image "${record.imageShownAs ?? record.imageName}" does not have it` })
  if (reason === undefined)
    return code === "not_found" || code === "invalid" ? error.but({ reason: "not_started" }) : error
  const hint = code === "conflict" ? hintsOfReasons[reason] : undefined
  return hint === undefined ? error : error.but({ hint })
}
