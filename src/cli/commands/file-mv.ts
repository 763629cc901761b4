/** `bhatti file mv`. */

import { command } from "../command.ts"
import { printable } from "../words.ts"

export const fileMv = command({
  args: ["sandbox", "from", "to"],
  description: "TO is the new path itself, not a directory to move into.",
  examples: ["bhatti file mv dev draft.md /workspace/docs/guide.md"],
  async run({ client, args, isJson, out }) {
    const { sandbox, from, to } = args
    const reply = await client.moveFile({ params: { id: sandbox }, body: { from, to } })
    if (isJson) return await out.json(reply)
    await out.result(`${sandbox}:${printable(from)} is now ${printable(to)}`)
  },
})
