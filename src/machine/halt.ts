/**
 * Tells whether a machine's processors are paused, and whether that is because the host ran out of disk space. The
 * answer is cached until QEMU's next event, so checking a machine costs it nothing.
 */

import { AppError } from "@bhatti/contract/errors"
import { z } from "zod"
import type { Qmp } from "./qmp.ts"

/** disk_full: a write waits for space on the host. paused: any other reason. */
export type Halt = "none" | "paused" | "disk_full"

const Status = z.object({ running: z.boolean(), status: z.string() })
const Blocks = z.array(z.object({ "io-status": z.string().optional() }))

export class Halts {
  readonly #known = new WeakMap<Qmp, { events: number; halt: Halt }>()
  /** QEMU may keep a machine's out-of-space status after it resumes, and then reports no reason for a later pause. */
  readonly #past = new WeakSet<Qmp>()
  readonly #deadlineMs: number

  constructor(options: { deadlineMs: number }) {
    this.#deadlineMs = options.deadlineMs
  }

  async read(monitor: Qmp): Promise<Halt> {
    const known = this.#known.get(monitor)
    if (known?.events === monitor.haltEvents) return known.halt
    // Counted before the query: an event during the query makes the answer stale.
    const events = monitor.haltEvents
    const halt = await this.#ask(monitor)
    this.#known.set(monitor, { events, halt })
    return halt
  }

  async #ask(monitor: Qmp): Promise<Halt> {
    const deadline = { deadlineMs: this.#deadlineMs }
    const status = Status.safeParse(await monitor.command("query-status", {}, deadline))
    const blocks = Blocks.safeParse(await monitor.command("query-block", {}, deadline))
    if (!status.success || !blocks.success) {
      throw new AppError("unavailable", "QEMU does not say whether its machine runs")
    }
    const isMarked = blocks.data.some((block) => block["io-status"] === "nospace")
    if (status.data.running) {
      if (isMarked) this.#past.add(monitor)
      else this.#past.delete(monitor)
      return "none"
    }
    if (status.data.status === "io-error") {
      this.#past.delete(monitor)
      return "disk_full"
    }
    return isMarked && !this.#past.has(monitor) ? "disk_full" : "paused"
  }
}
