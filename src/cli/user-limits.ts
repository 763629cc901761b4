/** A user's limits as options, and the user as JSON. */

import { limits } from "@bhatti/contract/limits"
import type { User } from "@bhatti/contract/user"
import type { Options, OptionValues } from "./command.ts"
import type { UserLimits, UserRecord } from "./operator.ts"

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
    ...(maxSandboxes === undefined ? {} : { maxSandboxes }),
    ...(maxCpus === undefined ? {} : { maxCpus }),
    ...(maxMemory === undefined ? {} : { maxMemoryMib: maxMemory }),
    ...(maxDisk === undefined ? {} : { maxDiskMib: maxDisk }),
  }
}

export function viewUser(user: UserRecord): User {
  return {
    id: user.id,
    name: user.name,
    max_sandboxes: user.maxSandboxes,
    max_cpus: user.maxCpus,
    max_memory_mb: user.maxMemoryMib,
    max_disk_mb: user.maxDiskMib,
    created_at: user.createdAt,
    sandboxes: user.sandboxes,
    disk_used_mb: user.diskUsedMib,
  }
}
