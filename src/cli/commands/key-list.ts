/** `bhatti key list`. */

import { command } from "../command.ts"
import { ageText, spanText } from "../words.ts"

export const keyList = command({
  description: "Shows the keys of bhatti key create. Your own key is not among them.",
  examples: ["bhatti key list"],
  async run({ client, isJson, out }) {
    const keys = await client.listKeys()
    if (isJson) return await out.json(keys)
    if (keys.length === 0) return await out.talk("no keys; make one with: bhatti key create --can exec")
    const nowMs = Date.now()
    await out.table(
      ["NAME", "SANDBOXES", "CAN", "EXPIRES", "MADE", "ID"],
      keys.map(({ id, name, can, sandboxes, created_at, expires_at }) => [
        name,
        sandboxes?.map((one) => one.name ?? `${one.id} (destroyed)`).join(", ") ?? "all",
        can.join(","),
        expiryText(expires_at, nowMs),
        ageText(created_at, nowMs),
        id,
      ]),
    )
  },
})

function expiryText(at: string | null, nowMs: number): string {
  if (at === null) return "never"
  const seconds = Math.ceil((Date.parse(at) - nowMs) / 1000)
  return seconds <= 0 ? "expired" : `in ${spanText(seconds)}`
}
