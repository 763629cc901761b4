/**
 * API keys in use: who a key belongs to, and the end of what goes on with one that is taken away.
 *
 * Keys change in another process, the operator's command line, while streams are open here. SQLite counts what others
 * have written, which costs next to nothing to look at, so keys are looked up again only when somebody has written.
 */

import type { Store } from "../store/store.ts"
import { type Account, hashKey, noLongerValid } from "../store/users.ts"
import type { Log } from "./bounded-log.ts"
import { pause } from "./pause.ts"

const lookEveryMs = 250

export type KeyHolder = {
  account: Account
  /** Aborts, with an `AppError` as its reason, when the key is no longer valid. */
  revoked: AbortSignal
  /** Asks the database whether the key is valid now; whose it is, or an `AppError`. */
  confirm(): Promise<Account>
}

export class Keys {
  readonly #store: Store
  readonly #log: Log
  /** By the key's hash; no more than there are users, apart from keys that are being looked up. */
  readonly #inUse = new Map<string, AbortController>()
  #seenVersion: number | undefined

  constructor(store: Store, log: Log) {
    this.#store = store
    this.#log = log
  }

  async find(key: string): Promise<KeyHolder | undefined> {
    const hash = hashKey(key)
    // Noted before it is looked up, so that a change between the two is not missed.
    const controller = this.#inUse.get(hash) ?? new AbortController()
    this.#inUse.set(hash, controller)
    const confirm = () => this.#confirm(key, hash)
    const account = await this.#store.users.findByKey(key)
    if (account) return { account: { ...account, confirm }, revoked: controller.signal, confirm }
    this.#revoke(hash)
    return undefined
  }

  async #confirm(key: string, hash: string): Promise<Account> {
    const account = await this.#store.users.findByKey(key)
    if (account) return { ...account, confirm: () => this.#confirm(key, hash) }
    this.#revoke(hash)
    throw noLongerValid()
  }

  /** Ends what goes on with keys that are no longer valid. */
  async look(): Promise<void> {
    const version = await this.#store.foreignVersion()
    if (version === this.#seenVersion) return
    this.#seenVersion = version
    const valid = await this.#store.users.keyHashes()
    for (const hash of this.#inUse.keys()) if (!valid.has(hash)) this.#revoke(hash)
  }

  /** Looks until it is told to stop. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await this.look()
      } catch (error) {
        this.#log.error({ error }, "could not look whether keys have changed")
      }
      await pause(lookEveryMs, signal)
    }
  }

  #revoke(hash: string): void {
    const controller = this.#inUse.get(hash)
    this.#inUse.delete(hash)
    controller?.abort(noLongerValid())
  }
}
