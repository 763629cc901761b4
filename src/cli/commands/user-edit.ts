/** `bhatti user edit`. */

import { hostCommand } from "../command.ts"
import { givenLimits, userLimitOptions, viewUser } from "../user-limits.ts"
import { dataDirOption, withUserStore } from "../user-store.ts"
import { countText, sizeText } from "../words.ts"

export const userEdit = hostCommand({
  args: ["name"],
  description: "Changes only the given limits. Existing sandboxes stay unchanged.",
  options: { ...userLimitOptions, ...dataDirOption },
  refuse: ({ options }) =>
    Object.keys(givenLimits(options)).length === 0
      ? "nothing to change: give --max-sandboxes, --max-cpus, --max-memory or --max-disk"
      : undefined,
  examples: [
    "sudo bhatti user edit alice --max-sandboxes 10",
    "sudo bhatti user edit alice --max-memory 8G",
    "sudo bhatti user edit alice --max-disk 50G",
  ],
  async run({ args, options, operator, isJson, out }) {
    const user = await withUserStore(operator, options, (users) =>
      users.edit(args.name, givenLimits(options)),
    )
    if (isJson) return await out.json(viewUser(user))
    await out.result(
      `user/${user.name} may have ${user.maxSandboxes} sandboxes, each with up to ${countText(user.maxCpus, "cpu")} and ${sizeText(user.maxMemoryMib)}${user.maxDiskMib === 0 ? "" : `, on ${sizeText(user.maxDiskMib)} of disk together`}`,
    )
  },
})
