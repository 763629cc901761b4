/** `bhatti registry list`. */

import { command } from "../command.ts"
import { ageText } from "../words.ts"

export const registryList = command({
  description: "Logins that the daemon has stored for you. Passwords are never shown.",
  examples: ["bhatti registry list", "bhatti registry list --json"],
  async run({ client, isJson, out }) {
    const logins = await client.listRegistries()
    if (isJson) return await out.json(logins)
    if (logins.length === 0) return await out.talk("no logins; store one with: bhatti registry login HOST")
    const nowMs = Date.now()
    await out.table(
      ["REGISTRY", "USER", "STORED"],
      logins.map(({ host, username, created_at }) => [host, username, ageText(created_at, nowMs)]),
    )
  },
})
