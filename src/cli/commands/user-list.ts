/** `bhatti user list`. */

import { hostCommand } from "../command.ts"
import { viewUser } from "../user-limits.ts"
import { dataDirOption, withUserStore } from "../user-store.ts"
import { ageText, sizeText } from "../words.ts"

export const userList = hostCommand({
  options: dataDirOption,
  examples: ["sudo bhatti user list", "sudo bhatti user list --json"],
  async run({ options, operator, isJson, out }) {
    const users = await withUserStore(operator, options, (store) => store.list())
    if (isJson) return await out.json(users.map(viewUser))
    if (users.length === 0)
      return await out.talk("no users; make one with: sudo bhatti user create --name NAME")
    const nowMs = Date.now()
    await out.table(
      ["NAME", "SANDBOXES", "MAX CPUS", "MAX MEMORY", "DISK", "CREATED", "ID"],
      users.map((user) => [
        user.name,
        `${user.sandboxes}/${user.maxSandboxes}`,
        String(user.maxCpus),
        sizeText(user.maxMemoryMib),
        `${sizeText(user.diskUsedMib)}${user.maxDiskMib === 0 ? "" : ` of ${sizeText(user.maxDiskMib)}`}`,
        ageText(user.createdAt, nowMs),
        user.id,
      ]),
    )
  },
})
