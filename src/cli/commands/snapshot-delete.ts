/** `bhatti snapshot delete`. */

import { command } from "../command.ts"
import { isConfirmed, isPersonThere } from "../confirm.ts"
import { forEachName } from "../each-name.ts"
import { exitFailed } from "../exit-codes.ts"

export const snapshotDelete = command({
  rest: { name: "snapshot", kind: "names" },
  description:
    "Asks for confirmation at a terminal, and does not ask in a script. Sandboxes that were made from it stay.",
  options: {
    yes: { type: "flag", short: "y", summary: "Do not ask" },
  },
  examples: ["bhatti snapshot delete before-upgrade", "bhatti snapshot delete -y one two"],
  async run({ client, rest, options, isJson, out, report }) {
    const names = [...new Set(rest)]
    const isAsked = !options.yes && !isJson && (await isPersonThere())
    if (isAsked && !isConfirmed(`Delete ${names.join(", ")}?`)) {
      await out.talk("nothing was deleted")
      return exitFailed
    }
    return await forEachName(names, { report }, async (name) => {
      const reply = await client.deleteSnapshot({ params: { name } })
      await (isJson ? out.json(reply) : out.result(`snapshot/${name} deleted`))
    })
  },
})
