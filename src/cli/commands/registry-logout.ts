/** `bhatti registry logout`. */

import { command } from "../command.ts"

export const registryLogout = command({
  args: ["host"],
  examples: ["bhatti registry logout registry.example.com"],
  async run({ client, args, isJson, out }) {
    const reply = await client.logOut({ params: { host: args.host } })
    await (isJson ? out.json(reply) : out.result(`registry/${args.host} logged out`))
  },
})
