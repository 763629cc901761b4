/** `bhatti start`. */

import { command } from "../command.ts"
import { sayWhenLeft } from "../leaving.ts"
import { secondsText } from "../words.ts"

export const start = command({
  args: ["sandbox"],
  description:
    "Rarely needed: any command that uses a sandbox starts it. One that fails to start again and again is left alone for a while, longer each time; bhatti why says for how long.",
  options: {
    force: { type: "flag", summary: "Try now, however often it has failed" },
  },
  examples: ["bhatti start dev", "bhatti start dev --force"],
  async run({ client, args, options, isJson, out }) {
    const startMs = performance.now()
    using _leaving = sayWhenLeft(out, `${args.sandbox} is still being started; see: bhatti list`)
    const sandbox = await client.startSandbox({
      params: { id: args.sandbox },
      body: { force: options.force },
    })
    if (isJson) return await out.json(sandbox)
    await out.result(`sandbox/${sandbox.name} started in ${secondsText(performance.now() - startMs)}`)
  },
})
