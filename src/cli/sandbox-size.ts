/** The size of a new sandbox as options. */

import { limits } from "@bhatti/contract/limits"

export const sizeOptions = {
  cpus: {
    type: "integer",
    value: "N",
    min: 1,
    max: limits.cpusMax,
    summary: "Number of vCPUs",
    fallback: limits.cpusDefault,
  },
  memory: {
    type: "size",
    value: "MB",
    min: limits.memoryMibMin,
    max: limits.memoryMibMax,
    summary: "Memory, in MB or as 1G",
    fallback: limits.memoryMibDefault,
  },
  disk: {
    type: "size",
    value: "MB",
    min: limits.diskMibDefault,
    max: limits.diskMibMax,
    summary: "Size of the root disk, in MB or as 20G; only written blocks use space",
    fallback: limits.diskMibDefault,
  },
} as const
