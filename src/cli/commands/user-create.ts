/** `bhatti user create`. */

import { limits } from "../../contract/limits.ts"
import { hostCommand } from "../command.ts"
import { dataDirOption, withUserStore } from "../user-store.ts"

export const userCreate = hostCommand({
  description:
    "Works on the database in the data directory, so it needs access to that directory. The key is shown once.",
  options: {
    name: { type: "text", value: "NAME", summary: "User name, unique", isRequired: true },
    maxSandboxes: {
      type: "integer",
      value: "N",
      min: 0,
      max: limits.userSandboxesMax,
      summary: "Maximum number of sandboxes",
      fallback: limits.userSandboxesDefault,
    },
    maxCpus: {
      type: "integer",
      value: "N",
      min: 1,
      max: limits.cpusMax,
      summary: "Maximum vCPUs per sandbox",
      fallback: limits.userCpusDefault,
    },
    maxMemory: {
      type: "size",
      value: "MB",
      min: limits.memoryMibMin,
      max: limits.memoryMibMax,
      summary: "Maximum memory per sandbox, in MB or as 4G",
      fallback: limits.userMemoryMibDefault,
    },
    ...dataDirOption,
  },
  examples: ["sudo bhatti user create --name alice --max-sandboxes 5 --max-cpus 4 --max-memory 4096"],
  async run({ options, operator, isJson, out }) {
    const created = await withUserStore(operator, options, (users) =>
      users.create({
        name: options.name,
        ...(options.maxSandboxes === undefined ? {} : { max_sandboxes: options.maxSandboxes }),
        ...(options.maxCpus === undefined ? {} : { max_cpus: options.maxCpus }),
        ...(options.maxMemory === undefined ? {} : { max_memory_mb: options.maxMemory }),
      }),
    )
    if (isJson) return await out.json(created)
    await out.result(`user/${created.user.name} created\nAPI key: ${created.key}`)
    await out.talk("the key is shown only now; its owner gives it to: bhatti setup")
  },
})
