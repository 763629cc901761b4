/** Counts each guest's recent reboots, to stop reboot loops. */

import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Clock } from "./clock.ts"

/** A guest that reboots more often than this within the window is not restarted automatically. */
export const rebootsMax = 3
const rebootsWithinMs = 60_000

export class Reboots {
  readonly #clock: Clock
  readonly #times = new Map<SandboxRecord["id"], number[]>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Returns false after too many reboots. */
  add(id: SandboxRecord["id"]): boolean {
    const nowMs = this.#clock.nowMs()
    const times = (this.#times.get(id) ?? []).filter((ms) => nowMs - ms < rebootsWithinMs)
    this.#times.set(id, [...times, nowMs].slice(-rebootsMax - 1))
    return times.length < rebootsMax
  }

  forget(id: SandboxRecord["id"]): void {
    this.#times.delete(id)
  }
}
