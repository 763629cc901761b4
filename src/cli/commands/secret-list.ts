/** `bhatti secret list`. */

import { command } from "../command.ts"
import { ageText } from "../words.ts"

export const secretList = command({
  description: "Names only; nothing shows a value again.",
  examples: ["bhatti secret list"],
  async run({ client, isJson, out }) {
    const secrets = await client.listSecrets()
    if (isJson) return await out.json(secrets)
    if (secrets.length === 0) return await out.talk("no secrets; set one with: bhatti secret set NAME")
    const nowMs = Date.now()
    await out.table(
      ["NAME", "SET"],
      secrets.map(({ name, updated_at }) => [name, ageText(updated_at, nowMs)]),
    )
  },
})
