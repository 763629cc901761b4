/**
 * When an idle sandbox is paused, and when a paused one is written to disk. Idle means idle: no open stream (a command, an
 * attached session, a transfer, a published connection), nothing asked for lately, and no work inside the guest.
 */

export type ThermalSettings = {
  /** Idle time after which a hot sandbox is paused; 0: never. */
  warmAfterMs: number
  /** Time a paused one stays in memory; 0: for ever. */
  coldAfterMs: number
}

export type ThermalFacts = {
  state: "hot" | "warm"
  keepHot: boolean
  allowCold: boolean
  openStreams: number
  /** Since somebody last asked something of it. */
  unaskedForMs: number
  /** Since its guest last used more processor time than an idle one does. */
  guestIdleForMs: number
  /** Since it was paused. */
  warmForMs: number
}

export type ThermalDecision = {
  action: "stay" | "pause" | "save"
  /** What it comes from, as a person would say it. */
  reason: string
  /** When it would change if nothing happens; null: not by itself. */
  changesInMs: number | null
}

/** An idle guest under software emulation uses about one hundredth of a core. */
export const busyCpuShare = 0.05

const aftermathMs = 2000

export function decideThermal(facts: ThermalFacts, settings: ThermalSettings): ThermalDecision {
  const stay = (reason: string, changesInMs: number | null = null): ThermalDecision => ({
    action: "stay",
    reason,
    changesInMs,
  })
  if (facts.state === "warm") {
    if (!facts.allowCold) return stay("it is paused and must not be written to disk (allow_cold is off)")
    if (settings.coldAfterMs === 0)
      return stay("it is paused, and this host keeps paused sandboxes in memory")
    const left = settings.coldAfterMs - facts.warmForMs
    return left > 0
      ? stay("it was idle and is paused in memory", left)
      : { action: "save", reason: "it was paused for long", changesInMs: null }
  }
  if (facts.keepHot) return stay("it is kept hot (keep_hot is on)")
  if (settings.warmAfterMs === 0) return stay("this host does not pause sandboxes")
  if (facts.openStreams > 0) {
    return stay(
      facts.openStreams === 1
        ? "a client is connected to it"
        : `${facts.openStreams} clients are connected to it`,
    )
  }
  // What was asked makes work too, for a moment.
  const isGuestLast = facts.guestIdleForMs + aftermathMs < facts.unaskedForMs
  const left = settings.warmAfterMs - Math.min(facts.guestIdleForMs, facts.unaskedForMs)
  if (left <= 0) return { action: "pause", reason: "it is idle", changesInMs: null }
  return stay(isGuestLast ? "something works inside it" : "it was asked something lately", left)
}
