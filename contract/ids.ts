/** Ids of users, sandboxes, snapshots, images and tasks. */

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

export const ImageId = z
  .string()
  .regex(/^img_[0-9a-f]{16}$/)
  .brand<"ImageId">()
export type ImageId = z.infer<typeof ImageId>

export const TaskId = z
  .string()
  .regex(/^task_[0-9a-f]{16}$/)
  .brand<"TaskId">()
export type TaskId = z.infer<typeof TaskId>
