/** Notices to clients that are connected to a sandbox: something is about to happen to it. */

import type { TtlEnd } from "@bhatti/contract/lifetime"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Account } from "../store/users.ts"

export type Notice = { action: Exclude<TtlEnd, "keep">; endsAt: string; text: string }

type Listener = { account: Pick<Account, "id">; nameOrId: string; hear: (notice: Notice) => void }

export class Notices {
  readonly #listeners = new Set<Listener>()

  /** `nameOrId` is the sandbox as the client has called it. Dispose of the result when the client is gone. */
  listen(listener: Listener): Disposable {
    this.#listeners.add(listener)
    return { [Symbol.dispose]: () => this.#listeners.delete(listener) }
  }

  tell({ id, name, userId }: Pick<SandboxRecord, "id" | "name" | "userId">, notice: Notice): void {
    for (const { account, nameOrId, hear } of [...this.#listeners])
      if (account.id === userId && (nameOrId === id || nameOrId === name)) hear(notice)
  }
}
