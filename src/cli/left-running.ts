/**
 * Ctrl-C and SIGTERM during an operation that the daemon completes without us: prints that, and then the signal
 * ends the process as usual. Operations that are rolled back instead are in `cancel-create.ts`.
 */

import type { Output } from "./output.ts"
import { onSignals } from "./signals.ts"

export function noticeWhenInterrupted(out: Output, words: string): Disposable {
  const listening = onSignals(["SIGINT", "SIGTERM"], async (signal) => {
    listening[Symbol.dispose]()
    await out.talk(`stopped waiting: ${words}`)
    process.kill(process.pid, signal)
  })
  return listening
}
