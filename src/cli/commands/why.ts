/** `bhatti why`. */

import { command } from "../command.ts"

export const why = command({
  args: ["sandbox"],
  description:
    "hot: running; warm: paused in memory; cold: on disk only. Any request makes a warm or cold one hot again.",
  examples: ["bhatti why dev"],
  async run({ client, args, isJson, out }) {
    const reply = await client.whySandbox({ params: { id: args.sandbox } })
    if (isJson) return await out.json(reply)
    const change =
      reply.changes_in_seconds === null
        ? ""
        : `; ${reply.changes_to} in ${reply.changes_in_seconds} s if nothing happens`
    await out.result(`sandbox/${args.sandbox} is ${reply.thermal ?? "changing"}: ${reply.reason}${change}`)
  },
})
