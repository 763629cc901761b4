/**
 * Signals during a transfer or another request: it is cancelled cleanly, leaves no partial files, and the exit code
 * names the signal.
 */

import type { Output } from "../output.ts"
import { onSignals, signalExitCodes } from "../signals.ts"

/**
 * Runs a transfer and returns its exit code, or the signal's if it was interrupted; `words` then describe the
 * outcome.
 */
export async function guardTransfer(
  { out, words }: { out: Output; words: string },
  transfer: (signal: AbortSignal) => Promise<number>,
): Promise<number> {
  const abort = new AbortController()
  let exitCode: number | undefined
  using _listening = onSignals(["SIGHUP", "SIGINT", "SIGTERM"], (signal) => {
    exitCode ??= signalExitCodes[signal]
    abort.abort()
  })
  try {
    return await transfer(abort.signal)
  } catch (error) {
    if (exitCode === undefined) throw error
    await out.talk(`interrupted; ${words}`)
    return exitCode
  }
}
