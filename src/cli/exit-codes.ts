/** Exit codes with a meaning, the same as in shells and container tools. */

import type { AppError } from "@bhatti/contract/errors"
import type { ExecExit } from "@bhatti/sdk/exec-stream"
import { Refusal } from "@bhatti/sdk/failure"
import { Stopped } from "./stopped.ts"

export const exitFailed = 1
export const exitUsage = 2
/** As timeout(1) reports a command that it had to end. */
export const exitTimedOut = 124
/** For `exec` and `shell`, whose other codes are the command's own: bhatti failed. */
export const exitSandboxSide = 125
export const exitNotExecutable = 126
export const exitNotFound = 127
/** The code that a shell reports for a program ended by Ctrl-C. */
export const exitInterrupted = 130
/** The code that a shell reports for a program ended by SIGPIPE. */
export const exitBrokenPipe = 141

/** The exit code for the end of a program in a sandbox. */
export function exitCodeOfEnd({ exit_code, timed_out }: Pick<ExecExit, "exit_code" | "timed_out">): number {
  return timed_out ? exitTimedOut : exit_code
}

/**
 * For most commands. A request that the daemon calls invalid counts as wrong usage, like arguments that we refuse
 * ourselves.
 */
export function exitCodeOf(error: AppError): number {
  if (error instanceof Stopped) return exitInterrupted
  return error instanceof Refusal && error.code === "invalid" ? exitUsage : exitFailed
}
