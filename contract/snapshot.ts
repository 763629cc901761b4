/** Named snapshots: a sandbox's memory, devices and disk of the same moment, kept to start sandboxes from. */

import { z } from "zod"
import { SandboxId, SnapshotId, UserId } from "./ids.ts"
import { limits } from "./limits.ts"
import { ImageName, SandboxName } from "./sandbox.ts"
import { SecretName } from "./secret.ts"

export const SnapshotName = z
  .string()
  .regex(limits.sandboxNamePattern, `a snapshot name has ${limits.sandboxNameRule}`)
  .describe("Name of the snapshot, unique among yours")

export const Snapshot = z
  .object({
    id: SnapshotId,
    user_id: UserId,
    name: SnapshotName,
    status: z.enum(["creating", "ready", "deleting"]),
    source_sandbox: z.string().describe("Name of the sandbox it was taken from"),
    source_id: SandboxId,
    image: ImageName,
    cpus: z.int(),
    memory_mb: z.int().describe("Memory of the sandbox in MiB"),
    disk_size_mb: z.int().describe("Size of the root disk in MiB"),
    has_memory: z
      .boolean()
      .describe("Whether it holds the memory; otherwise a sandbox made from it boots from disk"),
    size_mb: z.int().describe("Space on the host in MiB"),
    created_at: z.iso.datetime(),
  })
  .meta({ id: "Snapshot" })
export type Snapshot = z.infer<typeof Snapshot>

export const Checkpoint = z.strictObject({ name: SnapshotName }).meta({ id: "Checkpoint" })

export const ResumeSnapshot = z
  .strictObject({
    name: SandboxName.optional(),
    secrets: z
      .array(SecretName)
      .max(limits.secretsMax)
      .default([])
      .describe("Names of your secrets that the new sandbox gets; it does not inherit the source's"),
  })
  .meta({ id: "ResumeSnapshot" })
export type ResumeSnapshot = z.infer<typeof ResumeSnapshot>

export const DeletedSnapshot = z.object({ status: z.literal("deleted") }).meta({ id: "DeletedSnapshot" })
