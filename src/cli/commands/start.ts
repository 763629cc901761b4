/** `bhatti start`. */

import { command } from "../command.ts"
import { sayWhenLeft } from "../leaving.ts"
import { secondsText } from "../words.ts"

export const start = command({
  args: ["sandbox"],
  description: "Rarely needed: any command that uses a sandbox starts it.",
  examples: ["bhatti start dev"],
  async run({ client, args, isJson, out }) {
    const startMs = performance.now()
    using _leaving = sayWhenLeft(out, `${args.sandbox} is still being started; see: bhatti list`)
    const sandbox = await client.startSandbox({ params: { id: args.sandbox } })
    if (isJson) return await out.json(sandbox)
    await out.result(`sandbox/${sandbox.name} started in ${secondsText(performance.now() - startMs)}`)
  },
})
