/**
 * API keys in use: the account of each key, and the end of its requests once it is revoked.
 * The operator's command line changes keys in another process while streams are open here. SQLite counts other
 * processes' writes, which is cheap to read, so users' own keys are looked up again only after such a write. Keys that
 * may do less can be revoked here and expire by themselves, so those in use are looked up each time.
 */

import type { SandboxId } from "@bhatti/contract/ids"
import { apiKeyPattern } from "@bhatti/contract/limits"
import type { Store } from "../store/store.ts"
import { type Account, hashKey, noLongerValid } from "../store/users.ts"
import type { Log } from "./bounded-log.ts"
import { type Clock, sleep } from "./clock.ts"

const lookEveryMs = 250

export type KeyHolder = {
  account: Account
  /** Aborts with an `AppError` once the key is no longer valid. */
  revoked: AbortSignal
  /** Asks the database whether the key is valid now; returns its account or throws an `AppError`. */
  confirm(): Promise<Account>
  /** Returns a ticket that opens one WebSocket with this key. */
  issueTicket(): Promise<string>
  /** Returns a token that stands for this key at one sandbox. */
  tokenFor(sandboxId: SandboxId): string
}

export class Keys {
  readonly #store: Store
  readonly #log: Log
  readonly #clock: Clock
  /** Keyed by the key's hash; bounded by the number of keys, plus lookups in progress. */
  readonly #inUse = new Map<string, AbortController>()
  /** The hashes of keys that may do less than their users. */
  readonly #lesser = new Set<string>()
  #seenVersion: number | undefined

  constructor(store: Store, { log, clock }: { log: Log; clock: Clock }) {
    this.#store = store
    this.#log = log
    this.#clock = clock
  }

  async find(key: string): Promise<KeyHolder | undefined> {
    return apiKeyPattern.test(key) ? await this.#holderOf(hashKey(key)) : undefined
  }

  /** Uses up a ticket, which `KeyHolder.issueTicket` has returned here or in another daemon. */
  async findByTicket(ticket: string): Promise<KeyHolder | undefined> {
    const hash = await this.#store.socketTickets.redeem(ticket)
    return hash === undefined ? undefined : await this.#holderOf(hash)
  }

  /** Finds the key behind a token of the sandbox, of any sandbox if none is named. */
  async findByToken(
    sandboxId: SandboxId | undefined,
    isMeant: (token: string) => boolean,
  ): Promise<{ holder: KeyHolder; sandboxId: SandboxId } | undefined> {
    const { sandboxTokens } = this.#store
    const tokens = sandboxId === undefined ? await sandboxTokens.ofAll() : await sandboxTokens.of(sandboxId)
    const found = tokens.find(({ token }) => isMeant(token))
    const holder = found && (await this.#holderOf(found.keyHash))
    return holder && { holder, sandboxId: found.sandboxId }
  }

  async #holderOf(hash: string): Promise<KeyHolder | undefined> {
    // Registered before the lookup, so that a change between the two is not missed.
    const controller = this.#inUse.get(hash) ?? new AbortController()
    this.#inUse.set(hash, controller)
    const confirm = () => this.#confirm(hash)
    const account = await this.#find(hash)
    if (account) {
      if (account.scope) this.#lesser.add(hash)
      const issueTicket = () => this.#store.socketTickets.issue(account.id, hash)
      const tokenFor = (id: SandboxId) => this.#store.sandboxTokens.tokenOf(id, hash)
      const holder = { account: { ...account, confirm }, revoked: controller.signal, confirm }
      return { ...holder, issueTicket, tokenFor }
    }
    this.#revoke(hash)
    return undefined
  }

  async #find(hash: string): Promise<Account | undefined> {
    return (await this.#store.users.findByKeyHash(hash)) ?? (await this.#store.apiKeys.findAccount(hash))
  }

  async #confirm(hash: string): Promise<Account> {
    const account = await this.#find(hash)
    if (account) return { ...account, confirm: () => this.#confirm(hash) }
    this.#revoke(hash)
    throw noLongerValid()
  }

  /** Ends the requests of keys that are no longer valid. */
  async look(): Promise<void> {
    const { apiKeys, users } = this.#store
    const lesser = [...this.#lesser]
    const valid = new Set(lesser.length === 0 ? [] : await apiKeys.validHashes(lesser))
    for (const hash of lesser) if (!valid.has(hash)) this.#revoke(hash)
    const version = await this.#store.foreignVersion()
    if (version === this.#seenVersion) return
    // Keys that come meanwhile are looked up by their requests, which may not know yet what kind of key it is.
    const hashes = [...this.#inUse.keys()]
    const known = new Set([...(await users.validHashes(hashes)), ...(await apiKeys.validHashes(hashes))])
    for (const hash of hashes) if (!known.has(hash)) this.#revoke(hash)
    this.#seenVersion = version
  }

  /** Runs until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await this.look()
      } catch (error) {
        this.#log.error({ error }, "could not check for changed keys")
      }
      await sleep(this.#clock, lookEveryMs, signal)
    }
  }

  #revoke(hash: string): void {
    const controller = this.#inUse.get(hash)
    this.#inUse.delete(hash)
    this.#lesser.delete(hash)
    controller?.abort(noLongerValid())
  }
}
