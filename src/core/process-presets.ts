/** The kinds of processes: how long each lives without its client, and how much of it is kept. */

import type { ProcessStart, Terminal } from "@bhatti/contract/guest"
import { limits } from "@bhatti/contract/limits"

type Preset = Pick<ProcessStart, "onDisconnect" | "graceMs" | "retainMs" | "ringBytes">

/** A key, how long the command waits for its client, and what the client has of it already. */
export type Keyed = Required<Pick<ProcessStart, "key" | "elapsedMs" | "graceMs">> & Pick<ProcessStart, "from">

/** A stream's client that comes back does so within the grace of its key, or never. */
const streamRetainMs = 60_000

/**
 * It ends with its client, unless the client has a key to come back with. `ringBytes` is that of a buffered answer, for
 * which a client may ask again later.
 */
export function clientsCommand(
  keyed: Keyed | undefined,
  ringBytes: number | undefined,
): Preset & Partial<Keyed> {
  if (!keyed) return { onDisconnect: "kill" }
  return {
    ...keyed,
    onDisconnect: "kill",
    ...(ringBytes === undefined
      ? { retainMs: keyed.graceMs + streamRetainMs }
      : { retainMs: limits.execRetainSec * 1000, ringBytes }),
  }
}

/**
 * The time since the client has sent its key first, with what the request has waited here. 0 stays 0: the first request
 * of a key starts its command at any time.
 */
export function elapsedWithWait(elapsedMs: number, waitedMs: number): number {
  return elapsedMs > 0 ? elapsedMs + Math.ceil(waitedMs) : 0
}

/** A command with a terminal that outlives its clients. */
export function session(tty: Terminal): Preset & { tty: Terminal; stdin: true } {
  return {
    tty,
    stdin: true,
    onDisconnect: "keep",
    retainMs: limits.processRetainSecDefault * 1000,
    ringBytes: limits.sessionOutputBytes,
  }
}

export function isSession({ tty, onDisconnect }: { tty: boolean; onDisconnect: string }): boolean {
  return tty && onDisconnect === "keep"
}
