/** `bhatti key revoke`. */

import { command } from "../command.ts"

export const keyRevoke = command({
  args: ["name"],
  description:
    "Takes a name or an id. Commands, shells and transfers that are open with the key end within a second.",
  examples: ["bhatti key revoke agent"],
  async run({ client, args, isJson, out }) {
    const reply = await client.revokeKey({ params: { name: args.name } })
    if (isJson) return await out.json(reply)
    await out.result(`key/${args.name} revoked`)
  },
})
