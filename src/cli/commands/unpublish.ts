/** `bhatti unpublish`. */

import { command } from "../command.ts"

export const unpublish = command({
  args: ["sandbox"],
  description:
    "Its URLs stop working immediately, for open connections too. With --alias only that URL stops.",
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
    alias: {
      type: "text",
      short: "a",
      value: "ALIAS",
      summary: "Only this alias of the port",
      fallback: "all that it has",
    },
  },
  examples: ["bhatti unpublish dev -p 3000", "bhatti unpublish dev -p 3000 -a my-app"],
  async run({ client, args, options, isJson, out }) {
    const { port, alias } = options
    const reply = await client.unpublishPort({
      params: { id: args.sandbox, port: String(port) },
      query: { alias },
    })
    if (isJson) return await out.json(reply)
    const what = alias === undefined ? "" : ` as ${alias}`
    await out.result(`port ${port} of ${args.sandbox} is no longer published${what}`)
  },
})
