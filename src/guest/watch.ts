/**
 * The stream on which a guest reports what nobody asked for: ends of processes, kills for memory, and services that
 * keep failing.
 */

import type { AbnormalEnd, GuestServiceState, MemoryKill, ProcessNotice } from "@bhatti/contract/guest"
import { RateLimiter } from "../lib/rate-limit.ts"
import { parseMemoryNotice } from "./end-detail.ts"
import { WireError } from "./frame.ts"
import type { Stream } from "./operation.ts"
import { parseAbnormalEnd, parseNotice } from "./process-message.ts"
import { parseServiceNotice } from "./services.ts"

/** Limit on reports; more are useless. */
const rate = { burst: 1000, perMinute: 1000 }

export type Watcher = {
  onNamedEnded(end: ProcessNotice): void
  onAbnormalEnd(end: AbnormalEnd): void
  onMemoryKill(kill: MemoryKill): void
  onServiceFailing(state: GuestServiceState): void
}

export function watchStream(watcher: Watcher): Stream {
  const allowed = new RateLimiter(rate, { bucketsMax: 1 })
  const refuse = () => {
    throw new WireError("a watch got a frame of a stream")
  }
  const onMessage = (payload: Uint8Array) => {
    const tell = reading(watcher, payload)
    if (!tell || allowed.take("", performance.now()).kind !== "allowed") return false
    tell()
    return true
  }
  const ignore = () => undefined
  return {
    onData: refuse,
    onDataAt: refuse,
    onWindow: refuse,
    onMessage,
    onEnd: ignore,
    onClose: ignore,
    onLost: ignore,
  }
}

/** Returns undefined for a report that this host does not know. */
function reading(watcher: Watcher, payload: Uint8Array): (() => void) | undefined {
  const named = parseNotice(payload)
  if (named) return () => watcher.onNamedEnded(named)
  const abnormal = parseAbnormalEnd(payload)
  if (abnormal) return () => watcher.onAbnormalEnd(abnormal)
  const kill = parseMemoryNotice(payload)
  if (kill) return () => watcher.onMemoryKill(kill)
  const failing = parseServiceNotice(payload)
  return failing && (() => watcher.onServiceFailing(failing))
}
