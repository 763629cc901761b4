/** `bhatti user edit`. */

import { hostCommand } from "../command.ts"
import { givenLimits, userLimitOptions } from "../user-limits.ts"
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
    if (isJson) return await out.json(user)
    await out.result(
      `user/${user.name} may have ${user.max_sandboxes} sandboxes, each with up to ${countText(user.max_cpus, "cpu")} and ${sizeText(user.max_memory_mb)}${user.max_disk_mb === 0 ? "" : `, on ${sizeText(user.max_disk_mb)} of disk together`}`,
    )
  },
})
