/** `bhatti user list`. */

import { hostCommand } from "../command.ts"
import { dataDirOption, withUserStore } from "../user-store.ts"
import { ageText, sizeText } from "../words.ts"

export const userList = hostCommand({
  options: dataDirOption,
  examples: ["sudo bhatti user list", "sudo bhatti user list --json"],
  async run({ options, operator, isJson, out }) {
    const users = await withUserStore(operator, options, (store) => store.list())
    if (isJson) return await out.json(users)
    if (users.length === 0)
      return await out.talk("no users; make one with: sudo bhatti user create --name NAME")
    const nowMs = Date.now()
    await out.table(
      ["NAME", "SANDBOXES", "MAX CPUS", "MAX MEMORY", "DISK", "CREATED", "ID"],
      users.map((user) => [
        user.name,
        `${user.sandboxes}/${user.max_sandboxes}`,
        String(user.max_cpus),
        sizeText(user.max_memory_mb),
        `${sizeText(user.disk_used_mb)}${user.max_disk_mb === 0 ? "" : ` of ${sizeText(user.max_disk_mb)}`}`,
        ageText(user.created_at, nowMs),
        user.id,
      ]),
    )
  },
})
