/** Opens connections to a port in a guest, or to the API's server for WebSockets. */

import { AppError } from "@bhatti/contract/errors"
import type { Core } from "../core/core.ts"
import { dialPublished } from "../core/dial-published.ts"
import { wholeAnswerPace } from "../rules/read-pace.ts"
import { GuestPeer, type Peer, SocketPeer } from "./peer.ts"
import type { Timeouts } from "./proxied-request.ts"
import type { Refusal } from "./refusal.ts"

export type Connected = { kind: "connected"; peer: Peer } | { kind: "refused"; refusal: Refusal }

/** A command may be silent for days while its client waits. An answer that is not a WebSocket arrives in one piece. */
export const apiTimeouts: Timeouts = {
  bodyMs: 600_000,
  answerMs: Number.POSITIVE_INFINITY,
  idleMs: wholeAnswerPace.windowMs,
  tunnelIdleMs: Number.POSITIVE_INFINITY,
  lingerMs: 0,
}

export const aliasTimeouts: Timeouts = {
  bodyMs: 60_000,
  answerMs: 300_000,
  idleMs: 600_000,
  tunnelIdleMs: 3_600_000,
  lingerMs: 500,
}

/** Requests that arrive shortly after a failed wake-up do not retry it. */
const backOffMs = 2000

export class Upstreams {
  readonly #core: Core
  readonly #apiSocketPath: string
  readonly #backOffUntilMs = new Map<string, number>()

  constructor(core: Core, options: { apiSocketPath: string }) {
    this.#core = core
    this.#apiSocketPath = options.apiSocketPath
  }

  /** Connects to the API's server for a change of protocol, which that server handles better than the proxy could. */
  connectApi(): Promise<Peer> {
    return SocketPeer.connectUnix(this.#apiSocketPath)
  }

  async connectAlias(alias: string): Promise<Connected> {
    if (this.#isBackingOff(alias)) return unreachable()
    try {
      const dialled = await dialPublished(this.#core, alias)
      switch (dialled.kind) {
        case "connected":
          return { kind: "connected", peer: new GuestPeer(dialled.connection) }
        case "unknown":
          return unknown(alias)
        case "refused":
          return nobodyListens
        case "busy":
          return busy
      }
    } catch (error) {
      // The sandbox is already backing off; this request started nothing.
      if (error instanceof AppError && error.retryAfterSec !== undefined)
        return unreachable(error.retryAfterSec)
      this.#backOff(alias, performance.now())
      // The owner sees the reason in the sandbox's state; other users of the alias must not.
      if (error instanceof AppError && error.code !== "internal")
        this.#core.log.warn({ alias, error }, "a published port cannot be reached")
      else this.#core.log.error({ alias, error }, "internal error in the proxy")
      return unreachable()
    }
  }

  #backOff(alias: string, nowMs: number): void {
    for (const [one, untilMs] of this.#backOffUntilMs) {
      if (untilMs <= nowMs) this.#backOffUntilMs.delete(one)
    }
    this.#backOffUntilMs.set(alias, nowMs + backOffMs)
  }

  #isBackingOff(alias: string): boolean {
    return performance.now() < (this.#backOffUntilMs.get(alias) ?? 0)
  }
}

function unknown(alias: string): Connected {
  const hint = "check the address, or ask its owner for the one that is published now"
  return { kind: "refused", refusal: { status: 404, message: `nothing is published as "${alias}"`, hint } }
}

function unreachable(retryAfterSec = backOffMs / 1000): Connected {
  const refusal = { status: 503, message: "the sandbox cannot be reached now", retryAfterSec }
  return { kind: "refused", refusal }
}

const busy: Connected = {
  kind: "refused",
  refusal: { status: 503, message: "too many connections to this sandbox", retryAfterSec: 1 },
}

const nobodyListens: Connected = {
  kind: "refused",
  refusal: {
    status: 502,
    message: "the sandbox is awake, but nothing listens on the published port",
    hint: "start the application in the sandbox, then load this again",
  },
}
