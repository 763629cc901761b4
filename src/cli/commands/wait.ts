/** `bhatti wait`. */

import { limits } from "@bhatti/contract/limits"
import { command } from "../command.ts"
import { exitTimedOut } from "../exit-codes.ts"
import { endText } from "../process-words.ts"

/** One request may wait so long; a longer wait takes several. */
const requestSecMax = 600

export const wait = command({
  args: ["sandbox", "process"],
  description: `PROCESS is an id or a name that bhatti ps shows. Its result is kept after its end, for a day unless it was started otherwise.

Exit code: the process's own, or 128 + the signal that ended it; 124 if --timeout is over first.`,
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
    for (;;) {
      const leftSec = Math.max(0, (endMs - performance.now()) / 1000)
      const timeout_sec = Math.min(leftSec, requestSecMax)
      const process = await client.waitProcess({ params, query: { timeout_sec } })
      if (process.ended) {
        if (isJson) await out.json(process)
        else if (process.ended.signal !== null) await out.talk(`bhatti: ${endText(process.ended)}`)
        return process.ended.exit_code
      }
      if (leftSec > requestSecMax) continue
      await out.talk(`bhatti: ${args.process} still runs`)
      return exitTimedOut
    }
  },
})
