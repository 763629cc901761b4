/** Commands that take several names try all of them in order, and fail if one failed. */

import { AppError } from "@bhatti/contract/errors"
import { exitCodeOf } from "./exit-codes.ts"
import { noticeWhenInterrupted } from "./left-running.ts"
import type { Output } from "./output.ts"
import { noticeIfSlow } from "./slow-notice.ts"
import { secondsText } from "./words.ts"

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

/** Starts, stops or restarts each sandbox. `done` is the verb; `ifSlow` says which part of it takes long. */
export async function changeEach(
  { rest, isJson, out, report }: EachContext,
  { done, ifSlow }: { done: string; ifSlow?: (name: string) => string },
  change: (name: string) => Promise<{ name: string }>,
): Promise<number> {
  return await forEachName([...new Set(rest)], { report }, async (name) => {
    const startMs = performance.now()
    using _notice = ifSlow && noticeIfSlow(out, () => ifSlow(name))
    using _interrupted = noticeWhenInterrupted(out, `${name} is still being ${done}; see: bhatti list`)
    const sandbox = await change(name)
    if (isJson) return await out.json(sandbox)
    await out.result(`sandbox/${sandbox.name} ${done} in ${secondsText(performance.now() - startMs)}`)
  })
}

type EachContext = {
  rest: readonly string[]
  isJson: boolean
  out: Output
  report: (error: AppError) => Promise<void>
}
