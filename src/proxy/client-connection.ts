/**
 * One client's connection: its requests one after the other, each to where its Host header says. An upstream connection is
 * kept for the next request only here, so no two clients, and no two aliases, ever share one.
 */

import type { Core } from "../core/core.ts"
import { isPublished } from "../core/published.ts"
import { hostName } from "../lib/host-name.ts"
import type { Admission, Visitor } from "./admission.ts"
import { isLoopback, limitKey, type TrustedProxies } from "./client-address.ts"
import { Exchange } from "./exchange.ts"
import { type ClientFacts, isBodyless, wantsToStay } from "./forwarded.ts"
import { HeadError, parseRequestHead, type RequestHead, valuesOf } from "./head.ts"
import { Lost, type Peer, type SocketPeer } from "./peer.ts"
import { readHead } from "./reading.ts"
import { type Refusal, refusalBytes } from "./refusal.ts"
import { aliasPace, apiPace, type Connected, type Upstreams } from "./upstreams.ts"
import { destinationOf, type Zone } from "./zone.ts"

/** What all connections share. */
export type Surroundings = {
  core: Core
  zone: Zone
  admission: Admission
  trustedProxies: TrustedProxies
  upstreams: Upstreams
}

const headDeadlineMs = 10_000
const keepAliveMs = 75_000
/** For what a client sends after our last answer. */
const goodbyeMs = 2000
/** Shorter than what servers commonly allow, so that they rarely close just when we ask again. */
const aliasUpstreamIdleMs = 4000
const apiUpstreamIdleMs = 30_000
const askPath = "/caddy/ask"

type Target = { kind: "alias"; alias: string } | { kind: "api" }
type Kept = { target: Target; peer: Peer; idleSinceMs: number }

export class ClientConnection implements Visitor {
  readonly #peer: SocketPeer
  readonly #facts: ClientFacts
  readonly #around: Surroundings
  #upstream: Kept | undefined
  #exchange: Exchange | undefined
  /** While a request is handled, or its upstream kept: who can be cut off by its alias. */
  #enteredAlias: string | undefined
  #waiting: { sinceMs: number; forMs: number } | undefined
  #leftAtMs: number | undefined

  constructor(peer: SocketPeer, facts: ClientFacts, around: Surroundings) {
    this.#peer = peer
    this.#facts = facts
    this.#around = around
  }

  /** Until the client or we have had enough. Rejects only for a bug. */
  async serve(): Promise<void> {
    try {
      while (await this.#serveOne());
      this.#leave()
    } catch (error) {
      this.#peer.close()
      if (!(error instanceof Lost)) throw error
    } finally {
      this.#dropUpstream()
    }
  }

  /** To be called several times a second. */
  check(nowMs: number): void {
    this.#exchange?.check(nowMs)
    const { sinceMs, forMs } = this.#waiting ?? { sinceMs: nowMs, forMs: 0 }
    if (nowMs - sinceMs > forMs && this.#waiting) this.#peer.close()
    if (this.#leftAtMs !== undefined && nowMs - this.#leftAtMs > goodbyeMs) this.#peer.close()
    const kept = this.#upstream
    if (kept && !this.#exchange) {
      const allowedMs = kept.target.kind === "api" ? apiUpstreamIdleMs : aliasUpstreamIdleMs
      if (kept.peer.hasEnded || kept.peer.isLost || nowMs - kept.idleSinceMs > allowedMs) this.#dropUpstream()
    }
  }

  cutOff(): void {
    this.#peer.close()
    this.#exchange?.stop()
    this.#dropUpstream()
  }

  yieldUpstream(): boolean {
    if (this.#exchange || !this.#upstream) return false
    this.#dropUpstream()
    return true
  }

  /** Refuses the connection itself. */
  async turnAway(refusal: Refusal): Promise<void> {
    try {
      await this.#peer.write(refusalBytes(refusal, { keepAlive: false }))
      this.#leave()
    } catch (error) {
      if (!(error instanceof Lost)) throw error
    }
  }

  /** False: this was the last one. */
  async #serveOne(): Promise<boolean> {
    let request: RequestHead
    try {
      const head = await this.#nextHead()
      if (!head) return false
      request = parseRequestHead(head)
    } catch (error) {
      if (!(error instanceof HeadError)) throw error
      await this.#peer.write(
        refusalBytes({ status: error.status, message: error.message }, { keepAlive: false }),
      )
      return false
    }
    const expected = valuesOf(request.headers, "expect")
    if (expected.some((value) => value.toLowerCase() !== "100-continue")) {
      return this.#refuse(request, { status: 417, message: "the only expectation is 100-continue" })
    }
    const destination = destinationOf(request.host, this.#around.zone)
    switch (destination.kind) {
      case "nowhere":
        return this.#refuse(request, {
          status: 421,
          message: `published ports are one name below ${this.#around.zone.domain}`,
        })
      case "alias":
        return this.#serveAlias(request, destination)
      case "api":
        return this.#isAsk(request) ? this.#answerAsk(request) : this.#exchangeWith(request, destination)
    }
  }

  async #nextHead(): Promise<Buffer | undefined> {
    this.#waiting = { sinceMs: performance.now(), forMs: keepAliveMs }
    try {
      return await readHead(this.#peer, "request", () => {
        this.#waiting = { sinceMs: performance.now(), forMs: headDeadlineMs }
      })
    } finally {
      this.#waiting = undefined
    }
  }

  async #serveAlias(request: RequestHead, target: Target & { kind: "alias" }): Promise<boolean> {
    const { admission, trustedProxies } = this.#around
    const client = trustedProxies.clientBehind(this.#facts.peer, valuesOf(request.headers, "x-forwarded-for"))
    const decision = admission.request({
      client: limitKey(client),
      alias: target.alias,
      nowMs: performance.now(),
    })
    if (decision.kind === "allowed") return this.#exchangeWith(request, target)
    return this.#refuse(request, {
      status: 429,
      message: "too many requests",
      retryAfterSec: Math.ceil(decision.retryAfterMs / 1000),
    })
  }

  async #exchangeWith(request: RequestHead, target: Target): Promise<boolean> {
    for (;;) {
      const kept = this.#takeKept(target)
      const connected: Connected = kept ? { kind: "connected", peer: kept } : await this.#connect(target)
      if (connected.kind === "refused") return this.#refuse(request, connected.refusal)
      // Cut off, or left, while the sandbox was woken.
      if (this.#peer.isLost) {
        connected.peer.close()
        throw new Lost("the client has left")
      }
      const exchange = new Exchange({
        client: this.#peer,
        upstream: connected.peer,
        request,
        facts: this.#facts,
        pace: target.kind === "api" ? apiPace : aliasPace,
        isUpstreamReused: kept !== undefined,
      })
      this.#exchange = exchange
      this.#peer.onGone = () => exchange.stop()
      try {
        const ending = await exchange.run()
        if (ending.kind === "stale") continue
        if (ending.isUpstreamReusable && ending.client === "keep") {
          this.#upstream = { target, peer: connected.peer, idleSinceMs: performance.now() }
        } else {
          connected.peer.close()
          this.#dropUpstream()
        }
        if (ending.client === "drop") throw new Lost("the exchange was broken off")
        return ending.client === "keep"
      } finally {
        this.#exchange = undefined
        this.#peer.onGone = () => undefined
      }
    }
  }

  async #connect(target: Target): Promise<Connected> {
    this.#dropUpstream()
    const { admission, upstreams } = this.#around
    if (target.kind === "api") return upstreams.connectApi()
    if (!admission.enter(target.alias, this)) {
      const refusal = { status: 503, message: "too many connections to this address", retryAfterSec: 1 }
      return { kind: "refused", refusal }
    }
    this.#enteredAlias = target.alias
    const connected = await upstreams.connectAlias(target.alias)
    if (connected.kind === "refused") this.#dropUpstream()
    return connected
  }

  /** The kept connection, if it leads there and still stands. */
  #takeKept(target: Target): Peer | undefined {
    const kept = this.#upstream
    if (!kept) return undefined
    const leadsThere =
      kept.target.kind === target.kind &&
      (target.kind === "api" || (kept.target.kind === "alias" && kept.target.alias === target.alias))
    if (!leadsThere || kept.peer.hasEnded || kept.peer.isLost || kept.peer.hasArrived) return undefined
    this.#upstream = undefined
    return kept.peer
  }

  #dropUpstream(): void {
    this.#upstream?.peer.close()
    this.#upstream = undefined
    if (this.#enteredAlias !== undefined) this.#around.admission.leave(this.#enteredAlias, this)
    this.#enteredAlias = undefined
  }

  #isAsk(request: RequestHead): boolean {
    const isPath = request.target === askPath || request.target.startsWith(`${askPath}?`)
    return isPath && request.method === "GET" && isLoopback(this.#facts.peer)
  }

  /** A proxy on this host asks whether to get a certificate for a name. */
  async #answerAsk(request: RequestHead): Promise<boolean> {
    const { admission, core, zone } = this.#around
    const decision = admission.ask(performance.now())
    if (decision.kind === "refused") {
      const retryAfterSec = Math.ceil(decision.retryAfterMs / 1000)
      return this.#refuse(request, { status: 429, message: "too many questions", retryAfterSec })
    }
    const name = hostName(new URLSearchParams(request.target.slice(askPath.length)).get("domain") ?? "")
    const destination = destinationOf(name, zone)
    const isOurs =
      destination.kind === "alias"
        ? await isPublished(core, destination.alias)
        : name === zone.domain || zone.apiHosts.includes(name)
    return isOurs
      ? this.#refuse(request, { status: 200, message: "this name is served here" })
      : this.#refuse(request, { status: 404, message: "this name is not served here" })
  }

  /** Answers ourselves. A body that follows ends the connection, since nobody reads it. */
  async #refuse(request: RequestHead, refusal: Refusal): Promise<boolean> {
    const keepAlive = isBodyless(request.framing) && wantsToStay(request)
    await this.#peer.write(refusalBytes(refusal, { keepAlive, request }))
    return keepAlive
  }

  #leave(): void {
    this.#leftAtMs = performance.now()
    this.#peer.endAndDiscard()
  }
}
