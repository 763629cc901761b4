/** `bhatti start`. */

import { command } from "../command.ts"
import { forEachName } from "../each-name.ts"
import { noticeWhenInterrupted } from "../left-running.ts"
import { secondsText } from "../words.ts"

export const start = command({
  rest: { name: "sandbox", kind: "names" },
  description: `Rarely needed: any command that uses a sandbox starts it. After repeated failures a sandbox is not retried for a while, longer each time; bhatti why shows for how long.

All named sandboxes are tried, one after the other.`,
  options: {
    force: { type: "flag", summary: "Start now, without waiting after earlier failures" },
  },
  examples: ["bhatti start dev", "bhatti start dev worker", "bhatti start dev --force"],
  async run({ client, rest, options, isJson, out, report }) {
    return await forEachName([...new Set(rest)], { report }, async (name) => {
      const startMs = performance.now()
      using _interrupted = noticeWhenInterrupted(out, `${name} is still being started; see: bhatti list`)
      const sandbox = await client.startSandbox({ params: { id: name }, body: { force: options.force } })
      if (isJson) return await out.json(sandbox)
      await out.result(`sandbox/${sandbox.name} started in ${secondsText(performance.now() - startMs)}`)
    })
  },
})
