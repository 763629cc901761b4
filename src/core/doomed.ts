/**
 * Sandboxes that are being destroyed. A destroy wins: it ends their machine at once, and whoever is at work on one of them
 * asks here where that does not stop them.
 */

import { AppError } from "../contract/errors.ts"
import type { SandboxRecord } from "../store/sandboxes.ts"

type Named = Pick<SandboxRecord, "id" | "name">

export class Doomed {
  readonly #ids = new Set<SandboxRecord["id"]>()
  readonly #watches = new Set<{ records: readonly Named[]; controller: AbortController }>()

  has(id: SandboxRecord["id"]): boolean {
    return this.#ids.has(id)
  }

  /** False: somebody is destroying it already. */
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

  /** Throws if it is. After a machine was started: the destroy may have looked for one a moment too early. */
  check(record: Named): void {
    if (this.#ids.has(record.id)) throw destroyed(record)
  }

  /** Work that takes long and ends soon once its signal is aborted, as it is when one of them is destroyed. */
  async watch<T>(records: readonly Named[], work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    for (const record of records) this.check(record)
    const watch = { records, controller: new AbortController() }
    this.#watches.add(watch)
    try {
      return await work(watch.controller.signal)
    } catch (error) {
      // A file that a destroy took away fails the work before it looks at the signal: the destroy is the reason.
      throw watch.controller.signal.aborted ? watch.controller.signal.reason : error
    } finally {
      this.#watches.delete(watch)
    }
  }
}

function destroyed(record: Named): AppError {
  return new AppError("conflict", `sandbox "${record.name}" was destroyed meanwhile`)
}
