/** Notices to clients that are connected to a sandbox: something is about to happen to it. */

import type { TtlEnd } from "@bhatti/contract/lifetime"
import type { SandboxRecord } from "../store/sandboxes.ts"

export type Notice = { action: Exclude<TtlEnd, "keep">; endsAt: string; text: string }

type Listener = { sandboxId: SandboxRecord["id"]; hear: (notice: Notice) => void }

export class Notices {
  readonly #listeners = new Set<Listener>()

  /** Dispose of the result when the client is gone. */
  listen(listener: Listener): Disposable {
    this.#listeners.add(listener)
    return { [Symbol.dispose]: () => this.#listeners.delete(listener) }
  }

  tell({ id }: Pick<SandboxRecord, "id">, notice: Notice): void {
    for (const { sandboxId, hear } of [...this.#listeners]) if (sandboxId === id) hear(notice)
  }
}
