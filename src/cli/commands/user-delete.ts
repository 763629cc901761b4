/** `bhatti user delete`. */

import { hostCommand } from "../command.ts"
import { dataDirOption, withUserStore } from "../user-store.ts"

export const userDelete = hostCommand({
  args: ["name"],
  description: "Refused while the user has sandboxes, snapshots or images.",
  options: {
    yes: { type: "flag", short: "y", summary: "Accepted for scripts; the command never asks" },
    ...dataDirOption,
  },
  examples: ["sudo bhatti user delete alice"],
  async run({ args, options, operator, isJson, out }) {
    await withUserStore(operator, options, (users) => users.remove(args.name))
    if (isJson) return await out.json({ status: "deleted" })
    await out.result(`user/${args.name} deleted`)
  },
})
