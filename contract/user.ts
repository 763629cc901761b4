/** Users and their limits. Only the operator manages them, on the host; the HTTP interface has no user endpoints. */

import { z } from "zod"
import { UserId } from "./ids.ts"

export const User = z
  .object({
    id: UserId,
    name: z.string(),
    max_sandboxes: z.int(),
    max_cpus: z.int().describe("vCPUs per sandbox"),
    max_memory_mb: z.int().describe("Memory per sandbox in MiB"),
    max_disk_mb: z
      .int()
      .describe(
        "Quota in MiB for all sandboxes' disks and named snapshots together, without the saved memory of stopped sandboxes; 0: no quota",
      ),
    created_at: z.iso.datetime(),
    sandboxes: z.int(),
    disk_used_mb: z.int().describe("As last measured by the daemon"),
  })
  .meta({ id: "User" })
export type User = z.infer<typeof User>
