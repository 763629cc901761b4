/** `bhatti restart`. */

import { command } from "../command.ts"
import { forEachName } from "../each-name.ts"
import { noticeWhenInterrupted } from "../left-running.ts"
import { noticeIfSlow } from "../slow-notice.ts"
import { secondsText } from "../words.ts"

export const restart = command({
  rest: { name: "sandbox", kind: "names" },
  description: `Asks programs to end, gives them five seconds, syncs files and boots the sandbox from its disk.
Its memory is lost. Its init script runs again, unless it was created with --on-boot off. Running reboot inside does the same;
poweroff inside leaves it stopped until the next request.

All named sandboxes are tried, one after the other.`,
  examples: ["bhatti restart dev"],
  async run({ client, rest, isJson, out, report }) {
    return await forEachName([...new Set(rest)], { report }, async (name) => {
      const startMs = performance.now()
      using _notice = noticeIfSlow(out, () => `ending what runs in ${name} and booting it`)
      using _interrupted = noticeWhenInterrupted(out, `${name} is still being restarted; see: bhatti list`)
      const sandbox = await client.restartSandbox({ params: { id: name } })
      if (isJson) return await out.json(sandbox)
      await out.result(`sandbox/${sandbox.name} restarted in ${secondsText(performance.now() - startMs)}`)
    })
  },
})
