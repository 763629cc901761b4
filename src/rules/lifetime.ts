/**
 * When a sandbox's lifetime ends. Its owner is warned before: as long before as the host's setting says, or half of a
 * shorter lifetime. The end never comes sooner after the warning than that, and while clients are connected to the
 * sandbox not before the grace is over, so that a command which is running is told first.
 */

import type { TtlEnd } from "@bhatti/contract/lifetime"

export type LifetimeDefaults = {
  /** 0: for ever. */
  ttlMs: number
  onTtl: TtlEnd
  /** Time after which a stopped sandbox is destroyed; 0: never. */
  stoppedRetentionMs: number
}

export type LifetimeSettings = LifetimeDefaults & {
  /** A user's own defaults, by the user's name. */
  users: Readonly<Record<string, Partial<LifetimeDefaults>>>
  warningMs: number
  graceMs: number
}

export function defaultsOf({ users, ...all }: LifetimeSettings, user: string | undefined): LifetimeDefaults {
  const { ttlMs, onTtl, stoppedRetentionMs } = all
  const own = user !== undefined && Object.hasOwn(users, user) ? users[user] : {}
  return { ttlMs, onTtl, stoppedRetentionMs, ...own }
}

export type Times = { warnAtMs: number; endsAtMs: number }

/** A lifetime that begins now. */
export function timesFrom(nowMs: number, { ttlMs, warningMs }: { ttlMs: number; warningMs: number }): Times {
  const endsAtMs = nowMs + ttlMs
  return { warnAtMs: endsAtMs - Math.min(warningMs, ttlMs / 2), endsAtMs }
}

export type LifetimeDecision =
  | { kind: "wait"; untilMs: number }
  | { kind: "warn"; endsAtMs: number }
  | { kind: "end" }

export function decideLifetime(
  facts: Times & { nowMs: number; warnedAtMs: number | null; isBusy: boolean },
  { graceMs }: Pick<LifetimeSettings, "graceMs">,
): LifetimeDecision {
  const { nowMs, warnAtMs, endsAtMs, warnedAtMs, isBusy } = facts
  const leadMs = endsAtMs - warnAtMs
  if (nowMs < warnAtMs) return { kind: "wait", untilMs: warnAtMs }
  // The daemon may have been away at the time of the warning.
  if (warnedAtMs === null) return { kind: "warn", endsAtMs: Math.max(endsAtMs, nowMs + leadMs) }
  const untilMs = Math.max(endsAtMs, warnedAtMs + (isBusy ? Math.max(leadMs, graceMs) : leadMs))
  return nowMs < untilMs ? { kind: "wait", untilMs } : { kind: "end" }
}
