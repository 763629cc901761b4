/** `bhatti service list`. */

import { command } from "../command.ts"
import { serviceColumns, serviceRow } from "../services.ts"

export const serviceList = command({
  args: ["sandbox"],
  description:
    "A service is a program that the sandbox starts by itself and keeps running; bhatti create --service names them, and an image may.",
  examples: ["bhatti service list dev", "bhatti service list dev --json | jq '.[] | select(.failing)'"],
  async run({ client, args, isJson, out }) {
    const services = await client.listServices({ params: { id: args.sandbox } })
    if (isJson) return await out.json(services)
    if (services.length === 0)
      return await out.talk("no services; bhatti create --service NAME=COMMAND makes a sandbox with some")
    await out.table(serviceColumns, services.map(serviceRow))
  },
})
