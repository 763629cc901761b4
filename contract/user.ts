/** Users and their limits. Only the operator manages them, on the host; the HTTP interface has no user endpoints. */

import { z } from "zod"
import { limits } from "./limits.ts"
import { UserId } from "./sandbox.ts"

export const UserName = z
  .string()
  .regex(
    /^[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}$/,
    "a user name has 1 to 63 letters, digits, dots, underscores or hyphens",
  )

export const UserLimits = z.strictObject({
  max_sandboxes: z.int().min(0).max(limits.userSandboxesMax).default(limits.userSandboxesDefault),
  max_cpus: z.int().min(1).max(limits.cpusMax).default(limits.userCpusDefault).describe("vCPUs per sandbox"),
  max_memory_mb: z
    .int()
    .min(limits.memoryMibMin)
    .max(limits.memoryMibMax)
    .default(limits.userMemoryMibDefault)
    .describe("Memory per sandbox in MiB"),
  max_disk_mb: z
    .int()
    .min(0)
    .max(limits.userDiskMibMax)
    .default(limits.userDiskMibDefault)
    .describe(
      "Quota in MiB for all sandboxes' disks and named snapshots together, without the saved memory of stopped sandboxes; 0: no quota",
    ),
})
export type UserLimits = z.infer<typeof UserLimits>

export const User = UserLimits.extend({
  id: UserId,
  name: UserName,
  created_at: z.iso.datetime(),
  sandboxes: z.int(),
  disk_used_mb: z.int().describe("As last measured by the daemon"),
}).meta({
  id: "User",
})
export type User = z.infer<typeof User>
