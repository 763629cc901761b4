/** The end of a command: how, why and through whom. */

import { z } from "zod"

export const MemoryKill = z
  .object({
    pid: z.int(),
    name: z.string().describe("The program's name, as the kernel has it"),
    memory_mb: z.int().describe("Memory that it had, in MiB"),
    guest_memory_mb: z.int().describe("All memory of the sandbox's kernel, in MiB"),
    in_cgroup: z.boolean().describe("A control group inside had no memory left, not the whole sandbox"),
  })
  .describe("A process that the sandbox's kernel killed for lack of memory")
export type MemoryKill = z.infer<typeof MemoryKill>

/** Each is missing in the reply of an older daemon. */
export const endFields = {
  exit_code: z.int(),
  signal: z.string().nullable().describe("The signal that ended it; exit_code is then 128 + its number"),
  timed_out: z.boolean(),
  reason: z
    .string()
    .optional()
    .describe(
      "`exited`: by itself; `signal`; `time_limit`; `out_of_memory`: killed by the sandbox's kernel; `disconnected`: its client left. Reasons may be added",
    ),
  by: z
    .string()
    .nullable()
    .optional()
    .describe(
      "The sender of the signal: `client` (a request of yours), `guest` (from inside), `kernel`, or a part of bhatti; null if there was none",
    ),
  detail: z
    .object({
      memory_kills: z
        .array(MemoryKill)
        .optional()
        .describe("Its processes that were killed for lack of memory, itself first"),
      disk_full: z
        .enum(["space", "inodes"])
        .optional()
        .describe("The sandbox's disk had none of these left at the end"),
    })
    .nullable()
    .optional()
    .describe("Circumstances of an end with another exit code than 0"),
}
