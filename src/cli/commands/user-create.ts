/** `bhatti user create`. */

import { defaultDataDir, limits } from "@bhatti/contract/limits"
import { hostCommand } from "../command.ts"
import { givenLimits, userLimitOptions, viewUser } from "../user-limits.ts"
import { dataDirOption, withUserStore } from "../user-store.ts"

export const userCreate = hostCommand({
  description:
    "Works on the database in the data directory, so it needs access to that directory. The key is shown once.",
  options: {
    name: { type: "text", value: "NAME", summary: "User name, unique", isRequired: true },
    maxSandboxes: { ...userLimitOptions.maxSandboxes, fallback: limits.userSandboxesDefault },
    maxCpus: { ...userLimitOptions.maxCpus, fallback: limits.userCpusDefault },
    maxMemory: { ...userLimitOptions.maxMemory, fallback: limits.userMemoryMibDefault },
    maxDisk: { ...userLimitOptions.maxDisk, fallback: limits.userDiskMibDefault },
    ...dataDirOption,
  },
  examples: [
    "sudo bhatti user create --name alice --max-sandboxes 5 --max-cpus 4 --max-memory 4096",
    "sudo bhatti user create --name bob --max-disk 20G",
  ],
  async run({ options, operator, isJson, out }) {
    const warnings = await operator.warnings({ dataDir: options.dataDir ?? defaultDataDir })
    const created = await withUserStore(operator, options, (users) =>
      users.create({ name: options.name, ...givenLimits(options) }),
    )
    if (isJson) return await out.json({ ...created, user: viewUser(created.user) })
    await out.result(`user/${created.user.name} created\nAPI key: ${created.key}`)
    await out.talk("the key is shown only now; its owner gives it to: bhatti setup")
    for (const warning of warnings) await out.talk(`warning: ${warning}`)
  },
})
