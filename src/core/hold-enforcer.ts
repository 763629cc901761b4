/**
 * Detects held machines that still write. A stopped QEMU writes nothing. If the disk grows nevertheless, the machine is
 * stopped again, and ended if that does not help: a guest has taken QEMU over. Needs the sandbox's turn.
 */

import { AppError } from "@bhatti/contract/errors"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Core, OnHost } from "./core.ts"
import type { Machine } from "./host.ts"
import { machineOf } from "./machine-of.ts"
import { markEnded } from "./mark-ended.ts"

type Parts = Pick<Core, "endings" | "events" | "guests" | "log" | "store"> &
  OnHost<"disks" | "machines" | "network">

/** Writes that may be in flight when a machine is stopped, with a wide margin. */
const grownMibMax = 16
const warningsMax = 1

export class HoldEnforcer {
  readonly #core: Parts
  /** Keyed by hold, so that a new hold starts from zero. */
  readonly #seen = new WeakMap<object, { mib: number; warnings: number }>()

  constructor(core: Parts) {
    this.#core = core
  }

  /** A machine that does not answer is held too: its disk shows whether it stands still. */
  async pause(record: SandboxRecord, machine: Machine): Promise<void> {
    try {
      await this.#core.host.machines.pause(machine)
    } catch (error) {
      if (!(error instanceof AppError)) throw error
      this.#core.log.warn({ sandbox: record.id, error }, "a machine did not answer a pause")
    }
  }

  /** Records the size of its disk. Returns true if it has grown by more than a stopped machine may write. */
  hasGrown(hold: object, mib: number): boolean {
    const before = this.#seen.get(hold)
    if (!before) this.#seen.set(hold, { mib, warnings: 0 })
    return before !== undefined && mib - before.mib > grownMibMax
  }

  async enforce(record: SandboxRecord, hold: object): Promise<void> {
    const { machines, disks } = this.#core.host
    const machine = machineOf(record)
    const mib = await disks.measureMib(record.id, "overlay")
    if (!machine || !this.hasGrown(hold, mib)) return
    const warnings = this.#seen.get(hold)?.warnings ?? 0
    this.#seen.set(hold, { mib, warnings: warnings + 1 })
    if (warnings < warningsMax) return this.pause(record, machine)
    await machines.kill(machine)
    await markEnded(this.#core, record, {
      cause: "host_disk_full",
      reason: "it was paused because disk space ran out, but kept writing",
    })
  }

  /** Called when the machine may resume. */
  forget(hold: object): void {
    this.#seen.delete(hold)
  }
}
