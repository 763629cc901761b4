/** `bhatti snapshot create`. */

import { limits } from "@bhatti/contract/limits"
import { command } from "../command.ts"
import { noticeWhenInterrupted } from "../left-running.ts"
import { noticeIfSlow } from "../slow-notice.ts"
import { secondsText, sizeText } from "../words.ts"

export const snapshotCreate = command({
  args: ["sandbox"],
  description: `Saves memory, running programs and disk of the same moment. The sandbox pauses while they are read, and then continues. A stopped
one is not woken for it. You may have ${limits.snapshotsMax} snapshots.

The snapshot includes everything in its programs' memory, secrets too.`,
  options: {
    name: { type: "text", short: "n", value: "NAME", summary: "Name of the snapshot", isRequired: true },
  },
  examples: ["bhatti snapshot create dev --name before-upgrade"],
  async run({ client, args, options, isJson, out }) {
    const startMs = performance.now()
    using _notice = noticeIfSlow(out, () => `copying memory and disk of ${args.sandbox}`)
    using _interrupted = noticeWhenInterrupted(
      out,
      "the snapshot is still being made; see: bhatti snapshot list",
    )
    const snapshot = await client.checkpointSandbox({
      params: { id: args.sandbox },
      body: { name: options.name },
    })
    if (isJson) return await out.json(snapshot)
    const size = sizeText(snapshot.size_mb)
    const what = snapshot.has_memory ? size : `${size}, without memory`
    await out.result(
      `snapshot/${snapshot.name} created (${what}) in ${secondsText(performance.now() - startMs)}`,
    )
    await out.hint(`  try: bhatti snapshot resume ${snapshot.name}`)
  },
})
