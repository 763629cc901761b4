/** Ids of users, sandboxes and snapshots. */

import { z } from "zod"

export const UserId = z
  .string()
  .regex(/^usr_[0-9a-f]{8}$/)
  .brand<"UserId">()
export type UserId = z.infer<typeof UserId>

export const SandboxId = z
  .string()
  .regex(/^sb_[0-9a-f]{16}$/)
  .brand<"SandboxId">()
export type SandboxId = z.infer<typeof SandboxId>

export const SnapshotId = z
  .string()
  .regex(/^snap_[0-9a-f]{16}$/)
  .brand<"SnapshotId">()
export type SnapshotId = z.infer<typeof SnapshotId>
