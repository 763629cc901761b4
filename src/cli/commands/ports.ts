/** `bhatti ports`. */

import { command } from "../command.ts"

export const ports = command({
  args: ["sandbox"],
  examples: ["bhatti ports dev"],
  async run({ client, args, isJson, out }) {
    const ports = await client.listPorts({ params: { id: args.sandbox } })
    if (isJson) return await out.json(ports)
    if (ports.length === 0) return await out.talk(`nothing in ${args.sandbox} listens on a TCP port`)
    await out.table(
      ["PORT", "ADDRESS"],
      ports.map(({ port, address }) => [String(port), address]),
    )
  },
})
