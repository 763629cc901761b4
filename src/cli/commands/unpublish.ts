/** `bhatti unpublish`. */

import { command } from "../command.ts"

export const unpublish = command({
  args: ["sandbox"],
  description: "The URL stops working at once, for open connections too.",
  options: {
    port: {
      type: "integer",
      short: "p",
      value: "PORT",
      min: 1,
      max: 65_535,
      summary: "Port to unpublish",
      isRequired: true,
    },
  },
  examples: ["bhatti unpublish dev -p 3000"],
  async run({ client, args, options, isJson, out }) {
    const reply = await client.unpublishPort({ params: { id: args.sandbox, port: String(options.port) } })
    if (isJson) return await out.json(reply)
    await out.result(`port ${options.port} of ${args.sandbox} is no longer published`)
  },
})
