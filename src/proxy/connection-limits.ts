/** Limits on requests and connections: per client, per alias and in total. Counts here; the callers refuse. */

import type { RateLimits } from "@bhatti/contract/config"
import { limits } from "@bhatti/contract/limits"
import { type Decision, RateLimiter } from "../lib/rate-limit.ts"

/** A connection to an alias, which can be cut off when the alias is removed. */
export interface Visitor {
  /** Drops the connection immediately. */
  cutOff(): void
  /** Closes its kept connection to the guest if it is idle. */
  yieldUpstream(): boolean
}

export class ConnectionLimits {
  readonly #clients: RateLimiter
  readonly #aliases: RateLimiter
  readonly #total: RateLimiter
  readonly #asks: RateLimiter
  readonly #connections = new Map<string, number>()
  readonly #visitors = new Map<string, Set<Visitor>>()
  #connectionsTotal = 0

  constructor(rates: RateLimits) {
    const limiter = ({ burst, per_minute }: RateLimits["proxy_client"]) =>
      new RateLimiter({ burst, perMinute: per_minute }, { bucketsMax: limits.rateLimitBucketsMax })
    this.#clients = limiter(rates.proxy_client)
    this.#aliases = limiter(rates.proxy_alias)
    this.#total = limiter(rates.proxy_total)
    this.#asks = limiter(rates.certificate_ask)
  }

  request(options: { client: string; alias: string; nowMs: number }): Decision {
    const { client, alias, nowMs } = options
    const byClient = this.#clients.take(client, nowMs)
    if (byClient.kind === "refused") return byClient
    const byAlias = this.#aliases.take(alias, nowMs)
    return byAlias.kind === "refused" ? byAlias : this.#total.take("", nowMs)
  }

  ask(nowMs: number): Decision {
    return this.#asks.take("", nowMs)
  }

  /** Returns false if there are too many. `client` is undefined for a proxy that speaks for many clients. */
  openConnection(client: string | undefined): boolean {
    if (this.#connectionsTotal >= limits.proxyConnectionsMax) return false
    if (client !== undefined) {
      const count = this.#connections.get(client) ?? 0
      if (count >= limits.proxyConnectionsPerClientMax) return false
      this.#connections.set(client, count + 1)
    }
    this.#connectionsTotal++
    return true
  }

  closeConnection(client: string | undefined): void {
    this.#connectionsTotal--
    if (client === undefined) return
    const count = (this.#connections.get(client) ?? 1) - 1
    if (count === 0) this.#connections.delete(client)
    else this.#connections.set(client, count)
  }

  /** Returns false if all of the alias's connections are in use. */
  enter(alias: string, visitor: Visitor): boolean {
    const visitors = this.#visitors.get(alias) ?? new Set()
    if (visitors.size >= limits.proxyConnectionsPerAliasMax) {
      let hasRoom = false
      for (const one of visitors) {
        hasRoom = one.yieldUpstream()
        if (hasRoom) break
      }
      if (!hasRoom) return false
    }
    visitors.add(visitor)
    this.#visitors.set(alias, visitors)
    return true
  }

  leave(alias: string, visitor: Visitor): void {
    const visitors = this.#visitors.get(alias)
    visitors?.delete(visitor)
    if (visitors?.size === 0) this.#visitors.delete(alias)
  }

  cutOff(alias: string): void {
    for (const visitor of [...(this.#visitors.get(alias) ?? [])]) visitor.cutOff()
  }
}
