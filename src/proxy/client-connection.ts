/**
 * A client's connection: handles its requests in order and routes each by its Host header. Only this connection
 * may reuse an upstream connection, so no two clients and no two aliases ever share one.
 */

import type { Core } from "../core/core.ts"
import { aliasOf, isPublished } from "../core/dial-published.ts"
import { limitKey, type TrustedProxies } from "../lib/client-address.ts"
import { hostName } from "../lib/host-name.ts"
import { type Api, ApiRequest } from "./api-request.ts"
import type { ConnectionLimits, Visitor } from "./connection-limits.ts"
import { type ClientFacts, isBodyless, wantsKeepAlive } from "./forwarded.ts"
import { HeadError, parseRequestHead, type RequestHead, valuesOf } from "./head.ts"
import { Lost, type Peer, type SocketPeer } from "./peer.ts"
import { type Ending, ProxiedRequest } from "./proxied-request.ts"
import { readHead } from "./reading.ts"
import { type Refusal, refusalBytes } from "./refusal.ts"
import { destinationOf, ownerOf, type Zone } from "./routing.ts"
import { aliasTimeouts, apiTimeouts, type Connected, type Upstreams } from "./upstreams.ts"

/** Shared by all connections. */
export type ConnectionParts = {
  core: Core
  zone: Zone
  connectionLimits: ConnectionLimits
  trustedProxies: TrustedProxies
  upstreams: Upstreams
  api: Api
}

const headDeadlineMs = 10_000
const keepAliveMs = 75_000
/** Timeout for a client that does not read our refusal. */
const refusalMs = 60_000
/** Timeout for input that a client sends after our last answer. */
const goodbyeMs = 2000
/** Shorter than common server timeouts, so that servers rarely close a connection just as we reuse it. */
const upstreamIdleMs = 4000

type Kept = { alias: string; peer: Peer; idleSinceMs: number }
type Running<Outcome> = { run(): Promise<Outcome>; check(nowMs: number): void; stop(): void }

export class ClientConnection implements Visitor {
  readonly #peer: SocketPeer
  readonly #facts: ClientFacts
  readonly #parts: ConnectionParts
  #upstream: Kept | undefined
  #running: Running<unknown> | undefined
  /** Set while a request is handled or its upstream is kept: the alias that can cut this connection off. */
  #enteredAlias: string | undefined
  #waiting: { sinceMs: number; forMs: number } | undefined
  #leftAtMs: number | undefined

  constructor(peer: SocketPeer, facts: ClientFacts, parts: ConnectionParts) {
    this.#peer = peer
    this.#facts = facts
    this.#parts = parts
  }

  /** Serves until the client or we close the connection. Rejects only for a bug. */
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

  /** Called several times a second. */
  check(nowMs: number): void {
    this.#running?.check(nowMs)
    const { sinceMs, forMs } = this.#waiting ?? { sinceMs: nowMs, forMs: 0 }
    if (nowMs - sinceMs > forMs && this.#waiting) this.#peer.close()
    if (this.#leftAtMs !== undefined && nowMs - this.#leftAtMs > goodbyeMs) this.#peer.close()
    const kept = this.#upstream
    if (kept && !this.#running) {
      const isOver = nowMs - kept.idleSinceMs > upstreamIdleMs
      if (kept.peer.hasEnded || kept.peer.isLost || isOver) this.#dropUpstream()
    }
  }

  get isAnswering(): boolean {
    return this.#running !== undefined
  }

  cutOff(): void {
    this.#peer.close()
    this.#running?.stop()
    this.#dropUpstream()
  }

  yieldUpstream(): boolean {
    if (this.#running || !this.#upstream) return false
    this.#dropUpstream()
    return true
  }

  /** Refuses the connection itself, before any request. */
  async refuseConnection(refusal: Refusal): Promise<void> {
    try {
      await this.#say(refusalBytes(refusal, { keepAlive: false }))
      this.#leave()
    } catch (error) {
      if (!(error instanceof Lost)) throw error
    }
  }

  /** Returns false if this was the last request. */
  async #serveOne(): Promise<boolean> {
    let request: RequestHead | undefined
    try {
      const head = await this.#nextHead()
      if (!head) return false
      request = parseRequestHead(head)
      return await this.#serveRequest(request)
    } catch (error) {
      if (!(error instanceof HeadError)) throw error
      return this.#refuse(request, error)
    }
  }

  async #serveRequest(request: RequestHead): Promise<boolean> {
    const expected = valuesOf(request.headers, "expect")
    if (expected.some((value) => value.toLowerCase() !== "100-continue")) {
      return this.#refuse(request, { status: 417, message: "the only expectation is 100-continue" })
    }
    const destination = destinationOf(request, { zone: this.#parts.zone, peer: this.#facts.peer })
    switch (destination.kind) {
      case "nowhere":
        return this.#refuse(request, {
          status: 421,
          message: `published ports are one name below ${this.#parts.zone.domain}`,
        })
      case "alias":
        return this.#serveAlias(request, await this.#aliasOf(destination.alias))
      case "certificate_ask":
        return this.#answerAsk(request, destination.query)
      case "api_socket":
        return this.#serveApiSocket(request)
      case "api":
        this.#dropUpstream()
        return this.#run(new ApiRequest({ ...this.#sharedWith(request), api: this.#parts.api }))
    }
  }

  async #aliasOf(label: string): Promise<string> {
    const { core, zone } = this.#parts
    return zone.hasPortNames ? await aliasOf(core, label) : label
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

  async #serveAlias(request: RequestHead, alias: string): Promise<boolean> {
    const { connectionLimits, trustedProxies } = this.#parts
    const client = trustedProxies.clientBehind(this.#facts.peer, valuesOf(request.headers, "x-forwarded-for"))
    const decision = connectionLimits.request({
      client: limitKey(client),
      alias,
      nowMs: performance.now(),
    })
    if (decision.kind === "allowed") return this.#forward(request, alias)
    return this.#refuse(request, {
      status: 429,
      message: "too many requests",
      retryAfterSec: Math.ceil(decision.retryAfterMs / 1000),
    })
  }

  #sharedWith(request: RequestHead) {
    return { client: this.#peer, request, facts: this.#facts }
  }

  async #serveApiSocket(request: RequestHead): Promise<boolean> {
    this.#dropUpstream()
    const upstream = await this.#parts.upstreams.connectApi()
    const rest = { timeouts: apiTimeouts, isUpstreamReused: false }
    const running = new ProxiedRequest({ ...this.#sharedWith(request), upstream, ...rest })
    try {
      return goesOn(await this.#run(running))
    } finally {
      upstream.close()
    }
  }

  async #forward(request: RequestHead, alias: string): Promise<boolean> {
    for (;;) {
      const kept = this.#takeKept(alias)
      const connected: Connected = kept ? { kind: "connected", peer: kept } : await this.#connect(alias)
      if (connected.kind === "refused") return this.#refuse(request, connected.refusal)
      const running = new ProxiedRequest({
        ...this.#sharedWith(request),
        upstream: connected.peer,
        timeouts: aliasTimeouts,
        isUpstreamReused: kept !== undefined,
      })
      const ending = await this.#run(running)
      if (ending.kind === "stale") continue
      if (ending.isUpstreamReusable && ending.client === "keep") {
        this.#upstream = { alias, peer: connected.peer, idleSinceMs: performance.now() }
      } else {
        connected.peer.close()
        this.#dropUpstream()
      }
      return goesOn(ending)
    }
  }

  async #run<Outcome>(running: Running<Outcome>): Promise<Outcome> {
    // Cut off, or the client left, while the sandbox was woken.
    if (this.#peer.isLost) {
      running.stop()
      throw new Lost("the client disconnected")
    }
    this.#running = running
    this.#peer.onGone = () => running.stop()
    try {
      return await running.run()
    } finally {
      this.#running = undefined
      this.#peer.onGone = () => undefined
    }
  }

  async #connect(alias: string): Promise<Connected> {
    this.#dropUpstream()
    const { connectionLimits, upstreams } = this.#parts
    if (!connectionLimits.enter(alias, this)) {
      const refusal = { status: 503, message: "too many connections to this address", retryAfterSec: 1 }
      return { kind: "refused", refusal }
    }
    this.#enteredAlias = alias
    const connected = await upstreams.connectAlias(alias)
    if (connected.kind === "refused") this.#dropUpstream()
    return connected
  }

  /** Returns the kept connection if it leads to the alias and is still open. */
  #takeKept(alias: string): Peer | undefined {
    const kept = this.#upstream
    if (kept?.alias !== alias || kept.peer.hasEnded || kept.peer.isLost || kept.peer.hasArrived)
      return undefined
    this.#upstream = undefined
    return kept.peer
  }

  #dropUpstream(): void {
    this.#upstream?.peer.close()
    this.#upstream = undefined
    if (this.#enteredAlias !== undefined) this.#parts.connectionLimits.leave(this.#enteredAlias, this)
    this.#enteredAlias = undefined
  }

  /** A proxy on this host asks whether it may get a certificate for a name. */
  async #answerAsk(request: RequestHead, query: string): Promise<boolean> {
    const { connectionLimits, core, zone } = this.#parts
    const decision = connectionLimits.ask(performance.now())
    if (decision.kind === "refused") {
      const retryAfterSec = Math.ceil(decision.retryAfterMs / 1000)
      return this.#refuse(request, { status: 429, message: "too many requests", retryAfterSec })
    }
    const owner = ownerOf(hostName(new URLSearchParams(query).get("domain") ?? ""), zone)
    const isOurs =
      typeof owner === "object" ? await isPublished(core, await this.#aliasOf(owner.alias)) : owner === "api"
    return isOurs
      ? this.#refuse(request, { status: 200, message: "this name is served here" })
      : this.#refuse(request, { status: 404, message: "this name is not served here" })
  }

  /** Answers from the proxy itself. A request body ends the connection, since the proxy does not read it. */
  async #refuse(request: RequestHead | undefined, refusal: Refusal): Promise<boolean> {
    const keepAlive = request !== undefined && isBodyless(request.framing) && wantsKeepAlive(request)
    await this.#say(refusalBytes(refusal, { keepAlive, request }))
    return keepAlive
  }

  async #say(bytes: Buffer): Promise<void> {
    this.#waiting = { sinceMs: performance.now(), forMs: refusalMs }
    try {
      await this.#peer.write(bytes)
    } finally {
      this.#waiting = undefined
    }
  }

  #leave(): void {
    this.#leftAtMs = performance.now()
    this.#peer.endAndDiscard()
  }
}

function goesOn(ending: Ending): boolean {
  if (ending.kind === "stale" || ending.client === "drop") throw new Lost("the request was aborted")
  return ending.client === "keep"
}
