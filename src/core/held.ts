/** Words for a sandbox that is held for want of disk space. */

import { AppError } from "@bhatti/contract/errors"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { HoldReason } from "./parts.ts"

const retryAfterSec = 10

/** Text for a sentence about the sandbox. */
export function heldText(held: HoldReason): string {
  return held === "host_disk" ? "the host's disk is nearly full" : "its owner's disk quota is used up"
}

/** The reason as data. */
export function heldCause(held: HoldReason): "host_disk_full" | "disk_quota" {
  return held === "host_disk" ? "host_disk_full" : "disk_quota"
}

export function heldError(record: SandboxRecord, held: HoldReason): AppError {
  const message = `sandbox "${record.name}" is paused: ${heldText(held)}`
  if (held === "disk_quota") {
    return new AppError("limit_exceeded", message, {
      hint: "destroy another sandbox or delete a snapshot, or ask the operator for a higher quota; a start lets it go on, to remove files inside",
      subject: { kind: "disk_quota", sandbox: record.name },
      reason: heldCause(held),
    })
  }
  return new AppError("unavailable", message, {
    hint: "it resumes when there is space again: remove sandboxes or snapshots, or ask the operator to free space",
    reason: heldCause(held),
    retryAfterSec,
  })
}
