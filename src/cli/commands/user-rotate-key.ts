/** `bhatti user rotate-key`. */

import { hostCommand } from "../command.ts"
import { viewUser } from "../user-limits.ts"
import { dataDirOption, withUserStore } from "../user-store.ts"

export const userRotateKey = hostCommand({
  args: ["name"],
  description:
    "The old key stops working at once, and so do all keys that were made with it (bhatti key create).",
  options: dataDirOption,
  examples: ["sudo bhatti user rotate-key alice"],
  async run({ args, options, operator, isJson, out }) {
    const rotated = await withUserStore(operator, options, (users) => users.rotateKey(args.name))
    if (isJson) return await out.json({ ...rotated, user: viewUser(rotated.user) })
    await out.result(`user/${rotated.user.name} has a new key\nAPI key: ${rotated.key}`)
    await out.talk("the old key does not work any more; this one is shown only now")
  },
})
