/**
 * Sandboxes that keep failing to start: requests get the last error until the back-off is over, instead of a start
 * each. Kept in memory only, so that the next daemon retries each at once.
 */

import { AppError } from "@bhatti/contract/errors"
import { backOffLeftMs, type Failures, failedOnceMore } from "../rules/back-off.ts"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Clock } from "./clock.ts"

export type FailedStart = {
  inARow: number
  /** The last failure, as its owner may read it. */
  reason: string
  /** 0 if the next request retries. */
  backOffSec: number
}

export class FailedStarts {
  readonly #clock: Clock
  readonly #failed = new Map<SandboxRecord["id"], Failures & { reason: string }>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  add(id: SandboxRecord["id"], error: unknown): FailedStart {
    const failures = failedOnceMore(this.#failed.get(id), this.#clock.nowMs())
    // Only the log records errors that are not ours.
    const reason =
      error instanceof AppError && error.code !== "internal" ? error.message : "the daemon's log says why"
    this.#failed.set(id, { ...failures, reason })
    return this.#tell({ ...failures, reason })
  }

  find(id: SandboxRecord["id"]): FailedStart | undefined {
    const found = this.#failed.get(id)
    return found && this.#tell(found)
  }

  /** Called when the sandbox runs or is gone. */
  forget(id: SandboxRecord["id"]): void {
    this.#failed.delete(id)
  }

  /** Throws during the back-off. */
  checkBackOff({ id, name }: SandboxRecord): void {
    const found = this.find(id)
    if (!found || found.backOffSec === 0) return
    throw new AppError("unavailable", backOffText(name, found), {
      hint: backOffHint(found),
      subject: { kind: "failed_starts", sandbox: name, seconds: found.backOffSec },
      reason: "wake_failed",
      retryAfterSec: found.backOffSec,
    })
  }

  #tell(failed: Failures & { reason: string }): FailedStart {
    // Rounds to whole milliseconds first: the clock has fractions, which do not add up exactly.
    const backOffSec = Math.ceil(Math.round(backOffLeftMs(failed, this.#clock.nowMs())) / 1000)
    return { inARow: failed.inARow, reason: failed.reason, backOffSec }
  }
}

export function backOffText(name: string, { inARow, reason }: FailedStart): string {
  return `sandbox "${name}" failed to start ${inARow} times in a row: ${reason}`
}

export function backOffHint({ backOffSec }: FailedStart): string {
  return `it is tried again in ${backOffSec} s, or at once by a start with force`
}
