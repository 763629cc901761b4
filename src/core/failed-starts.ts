/**
 * Sandboxes whose starts fail one after the other: whoever asks for one meanwhile is told the last reason, and none is started
 * again for each request. In memory only, so that another daemon tries each afresh.
 */

import { AppError } from "../contract/errors.ts"
import { type Failures, failedOnceMore, restLeftMs } from "../rules/rest.ts"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Clock } from "./clock.ts"

export type FailedStart = {
  inARow: number
  /** Of the last one, as its owner may read it. */
  reason: string
  /** 0: the next request tries it. */
  restSec: number
}

export class FailedStarts {
  readonly #clock: Clock
  readonly #failed = new Map<SandboxRecord["id"], Failures & { reason: string }>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  add(id: SandboxRecord["id"], error: unknown): FailedStart {
    const failures = failedOnceMore(this.#failed.get(id), this.#clock.nowMs())
    // What else was thrown is for the log alone.
    const reason =
      error instanceof AppError && error.code !== "internal" ? error.message : "the daemon's log says why"
    this.#failed.set(id, { ...failures, reason })
    return this.#tell({ ...failures, reason })
  }

  find(id: SandboxRecord["id"]): FailedStart | undefined {
    const found = this.#failed.get(id)
    return found && this.#tell(found)
  }

  /** It runs, or is gone. */
  forget(id: SandboxRecord["id"]): void {
    this.#failed.delete(id)
  }

  /** Throws while it rests. */
  checkRested({ id, name }: SandboxRecord): void {
    const found = this.find(id)
    if (!found || found.restSec === 0) return
    throw new AppError("unavailable", restText(name, found), {
      hint: restHint(name, found),
      retryAfterSec: found.restSec,
    })
  }

  #tell(failed: Failures & { reason: string }): FailedStart {
    // Whole milliseconds first: the clock has fractions, which do not add up exactly.
    const restSec = Math.ceil(Math.round(restLeftMs(failed, this.#clock.nowMs())) / 1000)
    return { inARow: failed.inARow, reason: failed.reason, restSec }
  }
}

export function restText(name: string, { inARow, reason }: FailedStart): string {
  return `sandbox "${name}" failed to start ${inARow} times in a row: ${reason}`
}

export function restHint(name: string, { restSec }: FailedStart): string {
  return `it is tried again in ${restSec} s, or at once by: bhatti start ${name} --force`
}
