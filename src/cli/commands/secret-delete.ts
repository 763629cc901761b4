/** `bhatti secret delete`. */

import { command } from "../command.ts"

export const secretDelete = command({
  args: ["name"],
  description: "Sandboxes that were created with it keep it.",
  examples: ["bhatti secret delete API_KEY"],
  async run({ client, args, isJson, out }) {
    const reply = await client.deleteSecret({ params: { name: args.name } })
    if (isJson) return await out.json(reply)
    await out.result(`secret/${args.name} deleted`)
  },
})
