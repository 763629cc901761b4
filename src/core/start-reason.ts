/** Errors of commands: those of a program that could not start, told from the daemon's own refusals, and hints. */

import { AppError } from "@bhatti/contract/errors"
import type { SandboxRecord } from "../store/sandboxes.ts"
import { explainedOutput } from "./explained-process.ts"
import type { GuestProcess } from "./host.ts"

export type ImageOf = Pick<SandboxRecord, "imageConfig" | "imageName" | "imageShownAs">

/** The next step for a key that cannot be used. */
const hintsOfReasons: Readonly<Record<string, string>> = {
  rebooted:
    "the command may have run before the sandbox booted; look at what it has done, then use a new key",
  forgotten: "the command has run and its result is not kept any more; use a new key to run it again",
  key_reused: "use a new key for each command",
}

/**
 * The sandbox was found, so what is missing is the program; `record` is its sandbox, whose image may lack what others
 * have. A guest's agent of an earlier version gives no reasons.
 */
export function withStartReason(error: unknown, record?: ImageOf): unknown {
  if (!(error instanceof AppError)) return error
  const { code, reason } = error
  if (code === "not_found") {
    const isOfImage = reason === "no_program" && record?.imageConfig
    const hint = isOfImage && `its image "${record.imageShownAs ?? record.imageName}" does not have it`
    return error.but({ code: "command_not_found", reason: reason ?? "not_started", ...(hint && { hint }) })
  }
  if (reason === undefined) return code === "invalid" ? error.but({ reason: "not_started" }) : error
  const hint = code === "conflict" ? hintsOfReasons[reason] : undefined
  return hint === undefined ? error : error.but({ hint })
}

/** Once a command may have started, nobody should run it again without a look. */
function failureOfCommand(
  cause: unknown,
  { hasStarted, record }: { hasStarted: boolean; record: ImageOf | undefined },
): unknown {
  const error = withStartReason(cause, record)
  if (!(error instanceof AppError && error.code === "unavailable" && error.retryable && hasStarted))
    return error
  const hint = "the command may have run; look at what it has done before you run it again"
  return error.but({ hint, retryable: false })
}

/** A command whose failures say whether its program could start, and whether it may be run again. */
export function explainedCommand(process: GuestProcess, record: ImageOf | undefined): GuestProcess {
  let hasStarted = false
  process.attached.then(
    () => {
      hasStarted = true
    },
    () => undefined,
  )
  const explain = async (cause: unknown): Promise<never> => {
    throw failureOfCommand(cause, { record, hasStarted })
  }
  const attached = process.attached.then((value) => {
    hasStarted = true
    return value
  }, explain)
  const result = process.result.catch(explain)
  for (const promise of [attached, result]) promise.catch(() => undefined)
  return {
    ...{ attached, result, output: explainedOutput(process.output, explain) },
    write: (bytes) => process.write(bytes),
    endInput: () => process.endInput(),
    signal: (signal) => process.signal(signal),
    resize: (size) => process.resize(size),
    kill: (by) => process.kill(by),
    leave: () => process.leave(),
  }
}
