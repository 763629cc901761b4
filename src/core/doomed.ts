/**
 * Sandboxes that are being destroyed. A destroy wins: it ends their machine at once, and whoever is at work on one of them
 * asks here where that does not stop them.
 */

import { AppError } from "../contract/errors.ts"
import type { SandboxRecord } from "../store/sandboxes.ts"

type Named = Pick<SandboxRecord, "id" | "name">

export class Doomed {
  readonly #ids = new Set<SandboxRecord["id"]>()
  readonly #waiting = new Map<SandboxRecord["id"], () => void>()

  has(id: SandboxRecord["id"]): boolean {
    return this.#ids.has(id)
  }

  /** False: somebody is destroying it already. */
  add(id: SandboxRecord["id"]): boolean {
    if (this.#ids.has(id)) return false
    this.#ids.add(id)
    this.#waiting.get(id)?.()
    return true
  }

  delete(id: SandboxRecord["id"]): void {
    this.#ids.delete(id)
  }

  /** Throws if it is. After a machine was started: the destroy may have looked for one a moment too early. */
  check(record: Named): void {
    if (this.#ids.has(record.id)) throw destroyed(record)
  }

  /** What `work` gives, or no longer waiting for it. Needs the sandbox's turn. */
  async orGiveUp<T>(record: Named, work: Promise<T>): Promise<T> {
    this.check(record)
    const { promise, reject } = Promise.withResolvers<never>()
    this.#waiting.set(record.id, () => reject(destroyed(record)))
    try {
      return await Promise.race([work, promise])
    } finally {
      this.#waiting.delete(record.id)
    }
  }
}

function destroyed(record: Named): AppError {
  return new AppError("conflict", `sandbox "${record.name}" was destroyed while it was being started`)
}
