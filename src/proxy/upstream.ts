/** Where requests go: a port in a guest, or the API's own server. */

import { AppError } from "../contract/errors.ts"
import type { Core } from "../core/core.ts"
import { dialPublished } from "../core/published.ts"
import type { Pace } from "./exchange.ts"
import { GuestPeer, type Peer, SocketPeer } from "./peer.ts"
import type { Refusal } from "./refusal.ts"

export type Connected = { kind: "connected"; peer: Peer } | { kind: "refused"; refusal: Refusal }

/** A command may say nothing for days, and its client may wait. */
export const apiPace: Pace = {
  bodyMs: 600_000,
  answerMs: Number.POSITIVE_INFINITY,
  idleMs: Number.POSITIVE_INFINITY,
  tunnelIdleMs: Number.POSITIVE_INFINITY,
  lingerMs: 0,
}

export const aliasPace: Pace = {
  bodyMs: 60_000,
  answerMs: 300_000,
  idleMs: 600_000,
  tunnelIdleMs: 3_600_000,
  lingerMs: 500,
}

const retryAfterSec = 2

export async function connectApi(socketPath: string): Promise<Connected> {
  return { kind: "connected", peer: await SocketPeer.connectUnix(socketPath) }
}

export async function connectAlias(core: Core, alias: string): Promise<Connected> {
  try {
    const dialled = await dialPublished(core, alias)
    switch (dialled.kind) {
      case "connected":
        return { kind: "connected", peer: new GuestPeer(dialled.connection) }
      case "unknown":
        return refused({ status: 404, message: `nothing is published as "${alias}"` })
      case "refused":
        return refused({
          status: 502,
          message: "the sandbox is awake, but nothing listens on the published port",
          hint: "start the application in the sandbox, then load this again",
        })
    }
  } catch (error) {
    if (!(error instanceof AppError) || error.code === "internal") throw error
    // Its owner sees why in `bhatti list`; whoever knows the alias need not.
    core.log.warn({ alias, error }, "a published port cannot be reached")
    return refused({ status: 503, message: "the sandbox cannot be reached now", retryAfterSec })
  }
}

function refused(refusal: Refusal): Connected {
  return { kind: "refused", refusal }
}
