/** `bhatti image delete`. */

import { command } from "../command.ts"
import { isConfirmed, isPersonThere } from "../confirm.ts"
import { forEachName } from "../each-name.ts"
import { exitFailed } from "../exit-codes.ts"

export const imageDelete = command({
  rest: { name: "image", kind: "names" },
  description:
    "Asks for confirmation at a terminal, and does not ask in a script. Refused while a sandbox or a snapshot was made from it.",
  options: {
    yes: { type: "flag", short: "y", summary: "Do not ask" },
  },
  examples: ["bhatti image delete app", "bhatti image delete -y one two"],
  async run({ client, rest, options, isJson, out, report }) {
    const names = [...new Set(rest)]
    const isAsked = !options.yes && !isJson && (await isPersonThere())
    if (isAsked && !isConfirmed(`Delete ${names.join(", ")}?`)) {
      await out.talk("nothing was deleted")
      return exitFailed
    }
    return await forEachName(names, { report }, async (name) => {
      const reply = await client.deleteImage({ params: { name } })
      await (isJson ? out.json(reply) : out.result(`image/${name} deleted`))
    })
  },
})
