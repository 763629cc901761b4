/** Commands that take several names try all of them in order, and fail if one failed. */

import { AppError } from "@bhatti/contract/errors"
import { exitCodeOf } from "./exit-codes.ts"

export async function forEachName(
  names: readonly string[],
  { report }: { report: (error: AppError) => Promise<void> },
  act: (name: string) => Promise<void>,
): Promise<number> {
  let exitCode = 0
  for (const name of names) {
    try {
      await act(name)
    } catch (error) {
      if (!(error instanceof AppError)) throw error
      await report(error)
      exitCode = Math.max(exitCode, exitCodeOf(error))
    }
  }
  return exitCode
}
