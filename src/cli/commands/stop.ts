/** `bhatti stop`. */

import { command } from "../command.ts"
import { sayWhenLeft } from "../leaving.ts"
import { askForPatience } from "../patience.ts"
import { secondsText } from "../words.ts"

export const stop = command({
  args: ["sandbox"],
  description:
    "Its memory, its running programs and its disk are kept; the next request, or bhatti start, goes on where it was.",
  examples: ["bhatti stop dev"],
  async run({ client, args, isJson, out }) {
    const startMs = performance.now()
    using _patience = askForPatience(out, () => `writing the memory of ${args.sandbox} to disk`)
    using _leaving = sayWhenLeft(out, `${args.sandbox} is still being stopped; see: bhatti list`)
    const sandbox = await client.stopSandbox({ params: { id: args.sandbox } })
    if (isJson) return await out.json(sandbox)
    await out.result(`sandbox/${sandbox.name} stopped in ${secondsText(performance.now() - startMs)}`)
  },
})
