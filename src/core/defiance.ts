/**
 * Held machines that go on writing. A QEMU that has stopped its machine writes nothing, so one of which the disk grows all the same is
 * stopped anew, and is ended when that does not help: a guest has taken it over. Needs the sandbox's turn.
 */

import { AppError } from "../contract/errors.ts"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Core } from "./core.ts"
import type { Machine } from "./host.ts"
import { machineOf } from "./machine-of.ts"
import { markEnded } from "./power.ts"

/** What may be on its way when a machine is stopped, with much to spare. */
const grownMibMax = 16
const warningsMax = 1

export class Defiance {
  readonly #core: Core
  /** By the hold: a new one begins afresh. */
  readonly #seen = new WeakMap<object, { mib: number; warnings: number }>()

  constructor(core: Core) {
    this.#core = core
  }

  /** One that does not answer is held all the same: whether it stands still is seen by its disk. */
  async pause(record: SandboxRecord, machine: Machine): Promise<void> {
    try {
      await this.#core.host.machines.pause(machine)
    } catch (error) {
      if (!(error instanceof AppError)) throw error
      this.#core.log.warn({ sandbox: record.id, error }, "a machine does not answer to a pause")
    }
  }

  /** Size of its disk now. True: it has grown by more than a machine that stands still may. */
  hasGrown(hold: object, mib: number): boolean {
    const before = this.#seen.get(hold)
    if (!before) this.#seen.set(hold, { mib, warnings: 0 })
    return before !== undefined && mib - before.mib > grownMibMax
  }

  async enforce(record: SandboxRecord, hold: object): Promise<void> {
    const { machines, disks } = this.#core.host
    const machine = machineOf(this.#core, record)
    const mib = await disks.overlayMib(record.id)
    if (!machine || !this.hasGrown(hold, mib)) return
    const warnings = this.#seen.get(hold)?.warnings ?? 0
    this.#seen.set(hold, { mib, warnings: warnings + 1 })
    if (warnings < warningsMax) return this.pause(record, machine)
    await machines.kill(machine)
    await markEnded(this.#core, record, "it was paused for want of disk space and went on writing")
  }

  /** It is let go on. */
  forget(hold: object): void {
    this.#seen.delete(hold)
  }
}
