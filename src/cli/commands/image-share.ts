/** `bhatti image share` and `bhatti image unshare`. */

import { hostCommand } from "../command.ts"
import { dataDirOption, withStore } from "../user-store.ts"

const options = {
  owner: { type: "text", value: "USER", summary: "User whose image it is", isRequired: true },
  user: {
    type: "list",
    short: "u",
    value: "USER",
    summary: "User to share it with, may be repeated; none: everybody",
  },
  ...dataDirOption,
} as const

export const imageShare = hostCommand({
  args: ["image"],
  description:
    "Lets other users create sandboxes from a user's image. It stays its owner's, and counts in the owner's quota alone.",
  options,
  examples: [
    "sudo bhatti image share app --owner alice",
    "sudo bhatti image share app --owner alice --user bob --user carol",
  ],
  async run({ args, options, operator, isJson, out }) {
    const shared = { owner: options.owner, name: args.image, users: options.user }
    await withStore(operator, options, (store) => store.images.share(shared))
    if (isJson) return await out.json({ status: "shared" })
    await out.result(`image/${args.image} of ${options.owner} shared with ${whoText(options.user)}`)
  },
})

export const imageUnshare = hostCommand({
  args: ["image"],
  description: "Sandboxes that others have made from it stay.",
  options,
  examples: [
    "sudo bhatti image unshare app --owner alice",
    "sudo bhatti image unshare app --owner alice --user bob",
  ],
  async run({ args, options, operator, isJson, out }) {
    const shared = { owner: options.owner, name: args.image, users: options.user }
    await withStore(operator, options, (store) => store.images.unshare(shared))
    if (isJson) return await out.json({ status: "unshared" })
    await out.result(`image/${args.image} of ${options.owner} no longer shared with ${whoText(options.user)}`)
  },
})

function whoText(users: readonly string[]): string {
  return users.length === 0 ? "everybody" : users.join(", ")
}
