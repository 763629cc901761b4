/**
 * Sandboxes that are being destroyed. A destroy takes precedence: it ends the machine at once; work that this does not
 * stop asks here.
 */

import { AppError } from "@bhatti/contract/errors"
import type { SandboxRecord } from "../store/sandboxes.ts"

type Named = Pick<SandboxRecord, "id" | "name">

export class Destroying {
  readonly #ids = new Set<SandboxRecord["id"]>()
  readonly #watches = new Set<{ records: readonly Named[]; controller: AbortController }>()

  has(id: SandboxRecord["id"]): boolean {
    return this.#ids.has(id)
  }

  /** Returns false if the sandbox is already being destroyed. */
  add(id: SandboxRecord["id"]): boolean {
    if (this.#ids.has(id)) return false
    this.#ids.add(id)
    for (const { records, controller } of this.#watches) {
      const record = records.find((one) => one.id === id)
      if (record) controller.abort(destroyed(record))
    }
    return true
  }

  delete(id: SandboxRecord["id"]): void {
    this.#ids.delete(id)
  }

  /**
   * Throws if the sandbox is being destroyed. Call it after starting a machine: the destroy may have looked for one too
   * early.
   */
  check(record: Named): void {
    if (this.#ids.has(record.id)) throw destroyed(record)
  }

  /** Runs long work with a signal that aborts when one of the sandboxes is destroyed. */
  async watch<T>(records: readonly Named[], work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    for (const record of records) this.check(record)
    const watch = { records, controller: new AbortController() }
    this.#watches.add(watch)
    try {
      return await work(watch.controller.signal)
    } catch (error) {
      // The destroy may remove a file and fail the work before it checks the signal; the destroy is the reason to
      // report.
      throw watch.controller.signal.aborted ? watch.controller.signal.reason : error
    } finally {
      this.#watches.delete(watch)
    }
  }
}

function destroyed(record: Named): AppError {
  return new AppError("conflict", `sandbox "${record.name}" was destroyed meanwhile`, { reason: "destroyed" })
}
