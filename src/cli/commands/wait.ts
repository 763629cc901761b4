/** `bhatti wait`. */

import { AppError } from "@bhatti/contract/errors"
import { limits } from "@bhatti/contract/limits"
import { Attempts } from "@bhatti/sdk/reconnection"
import { command } from "../command.ts"
import { exitCodeOfEnd, exitTimedOut } from "../exit-codes.ts"
import { withLostNotice } from "../lost-notice.ts"
import { endText } from "../process-words.ts"

/** Limit of a single request; a longer wait takes several. */
const requestSecMax = 600

export const wait = command({
  args: ["sandbox", "process"],
  description: `PROCESS is an id or a name that bhatti ps shows. A process that has ended already answers at once: its result is kept for a day, unless it
was started otherwise, also over a stop and a start of the sandbox. When the sandbox boots (after bhatti restart, a reboot inside or a crash), its
processes end, and their results are forgotten.

Exit code: the process's own, or 128 + the signal that ended it; 124 if the time is over, its own (exec --detach --timeout) or that of --timeout here;
a line on standard error says which. With --json the process is printed as bhatti ps --json has it, also if it still runs.`,
  options: {
    timeout: {
      type: "seconds",
      value: "TIME",
      max: limits.processRetainSecMax,
      summary: "Wait at most this long: 90, 5m or 2h",
      fallback: "for ever",
    },
  },
  examples: ["bhatti wait dev p2", "bhatti wait dev build --timeout 10m && bhatti logs dev build"],
  async run({ client, args, options, isJson, out }) {
    const endMs = performance.now() + (options.timeout ?? Number.POSITIVE_INFINITY) * 1000
    const params = { id: args.sandbox, process: args.process }
    await client.getProcess({ params })
    const attempts = new Attempts(withLostNotice(out))
    for (;;) {
      const leftSec = Math.max(0, (endMs - performance.now()) / 1000)
      const timeout_sec = Math.min(leftSec, requestSecMax)
      const process = await unlessLost(attempts, () => client.waitProcess({ params, query: { timeout_sec } }))
      if (process === undefined) continue
      if (process.ended) {
        if (isJson) await out.json(process)
        else if (process.ended.signal !== null) await out.talk(`bhatti: ${endText(process.ended)}`)
        return exitCodeOfEnd(process.ended)
      }
      if (leftSec > requestSecMax) continue
      if (isJson) await out.json(process)
      await out.talk(`bhatti: ${args.process} still runs`)
      return exitTimedOut
    }
  },
})

/** Returns undefined if the daemon was away and another attempt is due. */
async function unlessLost<T>(attempts: Attempts, ask: () => Promise<T>): Promise<T | undefined> {
  try {
    const answer = await ask()
    attempts.succeeded()
    return answer
  } catch (error) {
    const isAway = error instanceof AppError && error.code === "unavailable" && error.retryable
    if (!isAway || !(await attempts.next())) throw error
    return undefined
  }
}
