/** The options that say what a user may have. */

import { limits } from "../contract/limits.ts"
import type { UserLimits } from "../contract/user.ts"
import type { Options, OptionValues } from "./command.ts"

export const userLimitOptions = {
  maxSandboxes: {
    type: "integer",
    value: "N",
    min: 0,
    max: limits.userSandboxesMax,
    summary: "Maximum number of sandboxes",
  },
  maxCpus: { type: "integer", value: "N", min: 1, max: limits.cpusMax, summary: "Maximum vCPUs per sandbox" },
  maxMemory: {
    type: "size",
    value: "MB",
    min: limits.memoryMibMin,
    max: limits.memoryMibMax,
    summary: "Maximum memory per sandbox, in MB or as 4G",
  },
} as const satisfies Options

export function givenLimits(options: OptionValues<typeof userLimitOptions>): Partial<UserLimits> {
  const { maxSandboxes, maxCpus, maxMemory } = options
  return {
    ...(maxSandboxes === undefined ? {} : { max_sandboxes: maxSandboxes }),
    ...(maxCpus === undefined ? {} : { max_cpus: maxCpus }),
    ...(maxMemory === undefined ? {} : { max_memory_mb: maxMemory }),
  }
}
