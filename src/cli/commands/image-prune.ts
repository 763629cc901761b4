/** `bhatti image prune`. */

import { command } from "../command.ts"
import { isConfirmed, isPersonThere } from "../confirm.ts"
import { exitFailed } from "../exit-codes.ts"
import { sizeText } from "../words.ts"

export const imagePrune = command({
  description:
    "Deletes your images that no sandbox and no snapshot was made from, and the kept steps of your builds. Asks for confirmation at a terminal, and does not ask in a script.",
  options: {
    yes: { type: "flag", short: "y", summary: "Do not ask" },
  },
  examples: ["bhatti image prune", "bhatti image prune -y"],
  async run({ client, options, isJson, out }) {
    const isAsked = !options.yes && !isJson && (await isPersonThere())
    if (
      isAsked &&
      !isConfirmed("Delete all of your images that nothing was made from, and the kept steps of your builds?")
    ) {
      await out.talk("nothing was deleted")
      return exitFailed
    }
    const { deleted, freed_mb } = await client.pruneImages()
    if (isJson) return await out.json({ deleted, freed_mb })
    for (const name of deleted) await out.result(`image/${name} deleted`)
    await out.talk(
      deleted.length === 0 && freed_mb === 0 ? "no image is unused" : `${sizeText(freed_mb)} freed`,
    )
  },
})
