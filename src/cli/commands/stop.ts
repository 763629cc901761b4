/** `bhatti stop`. */

import { command } from "../command.ts"
import { forEachName } from "../each-name.ts"
import { noticeWhenInterrupted } from "../left-running.ts"
import { noticeIfSlow } from "../slow-notice.ts"
import { secondsText } from "../words.ts"

export const stop = command({
  rest: { name: "sandbox", kind: "names" },
  description: `Keeps its memory, its running programs and its disk; the next request, or bhatti start, continues where it stopped.

All named sandboxes are tried, one after the other.`,
  examples: ["bhatti stop dev", "bhatti stop $(bhatti list -q --label team=web)"],
  async run({ client, rest, isJson, out, report }) {
    return await forEachName([...new Set(rest)], { report }, async (name) => {
      const startMs = performance.now()
      using _notice = noticeIfSlow(out, () => `writing the memory of ${name} to disk`)
      using _interrupted = noticeWhenInterrupted(out, `${name} is still being stopped; see: bhatti list`)
      const sandbox = await client.stopSandbox({ params: { id: name } })
      if (isJson) return await out.json(sandbox)
      await out.result(`sandbox/${sandbox.name} stopped in ${secondsText(performance.now() - startMs)}`)
    })
  },
})
