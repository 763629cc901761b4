/** The options for a user's limits. */

import { limits } from "@bhatti/contract/limits"
import type { UserLimits } from "@bhatti/contract/user"
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
  maxDisk: {
    type: "size",
    value: "MB",
    min: 0,
    max: limits.userDiskMibMax,
    summary:
      "Disk quota: space on the host of all sandboxes' disks and all named snapshots together, in MB or as 20G; memory of stopped sandboxes does not count; 0: none",
  },
} as const satisfies Options

export function givenLimits(options: OptionValues<typeof userLimitOptions>): Partial<UserLimits> {
  const { maxSandboxes, maxCpus, maxMemory, maxDisk } = options
  return {
    ...(maxSandboxes === undefined ? {} : { max_sandboxes: maxSandboxes }),
    ...(maxCpus === undefined ? {} : { max_cpus: maxCpus }),
    ...(maxMemory === undefined ? {} : { max_memory_mb: maxMemory }),
    ...(maxDisk === undefined ? {} : { max_disk_mb: maxDisk }),
  }
}
