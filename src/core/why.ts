/** Explains to a person why a sandbox is in its state. */

import type { TtlEnd } from "@bhatti/contract/lifetime"
import type { EventRecord } from "../store/events.ts"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Account } from "../store/users.ts"
import type { Core, OnHost } from "./core.ts"
import { backOffHint, backOffText, type FailedStart } from "./failed-starts.ts"
import { findSandbox } from "./find.ts"
import { heldText } from "./held.ts"
import type { Guest } from "./host.ts"
import type { HoldReason } from "./parts.ts"
import { findDestroyed, pastEnds } from "./past-ends.ts"
import { reasonOf } from "./services.ts"

type Parts = Pick<
  Core,
  | "clock"
  | "events"
  | "failedStarts"
  | "guests"
  | "hostClock"
  | "lifetimes"
  | "space"
  | "store"
  | "thermal"
  | "touches"
> &
  OnHost<"machines">

/** Limit on the console text of a kernel that panicked. */
const panicCharacters = 8192

/** A busy guest is not waited for. */
const pingDeadlineMs = 2000

export type Why = {
  /** Null on its way from one state to another. */
  thermal: "hot" | "warm" | "cold" | null
  reason: string
  held: HoldReason | null
  /** Reasons why it is not paused now. */
  keepsAwake: string[]
  /** The last request to it since the daemon started. */
  lastTouch: { what: string; secondsAgo: number } | null
  /** Why it lost its memory at its last start; null: it kept it. */
  startedFromDisk: string | null
  /** The end of its console, if a kernel panic ended its last machine. */
  panicConsole: string | null
  /** Null: unknown. */
  rootReadOnly: boolean | null
  failedStarts: FailedStart | null
  /** Services that end again and again. */
  failingServices: { name: string; restarts: number; reason: string | null }[]
  openStreams: number
  idleSec: number
  /** When the state changes if nothing happens, and to which. */
  changesInSec: number | null
  changesTo: "warm" | "cold" | null
  /** The nearest end of its life; null: it lives for ever. */
  lifetime: WhyLifetime | null
  /** Null: it exists. */
  destroyedAt: string | null
  /** Events of its last ends, oldest first. */
  ends: EventRecord[]
}

export type WhyLifetime = {
  /** Null: its time is over. */
  endsAt: string | null
  endsInSec: number | null
  action: TtlEnd
  reason: "ttl" | "stopped_retention"
  isWarned: boolean
}

const unknown = {
  thermal: null,
  held: null,
  keepsAwake: [],
  lastTouch: null,
  startedFromDisk: null,
  panicConsole: null,
  rootReadOnly: null,
  failedStarts: null,
  failingServices: [],
  openStreams: 0,
  idleSec: 0,
  changesInSec: null,
  changesTo: null,
  lifetime: null,
}

/** Explains also a sandbox that is destroyed, as long as its events are kept. */
export async function whySandbox(core: Parts, account: Account, nameOrId: string): Promise<Why> {
  const isThere = (await core.store.sandboxes.find(account, nameOrId)) !== undefined
  const destroyed = isThere ? undefined : await findDestroyed(core, account, nameOrId)
  if (!destroyed) return whyPresent(core, account, await findSandbox(core, account, nameOrId))
  const { user: by, reason } = destroyed.meta
  const how = by === undefined ? (reason === undefined ? "" : `: ${reason}`) : ` by ${by}`
  return {
    ...unknown,
    reason: `it was destroyed${how}`,
    destroyedAt: destroyed.at,
    ends: await pastEnds(core, account, destroyed.sandboxId),
  }
}

async function failingServices(
  record: SandboxRecord,
  guest: Guest | undefined,
): Promise<Why["failingServices"]> {
  if (record.services.length === 0 || !guest) return []
  const states = await guest.ask({ op: "listServices" }, { deadlineMs: pingDeadlineMs }).catch(() => [])
  return (
    states
      // A service that somebody stopped may have failed before.
      .filter(({ state, isFailing, failure }) => state !== "stopped" && (isFailing || failure !== null))
      .map((state) => ({ name: state.name, restarts: state.restarts, reason: reasonOf(state) }))
  )
}

async function lifetimeOf(
  core: Pick<Core, "hostClock" | "lifetimes">,
  record: SandboxRecord,
): Promise<WhyLifetime | null> {
  const { hostClock } = core
  const at = (endsAtMs: number) => ({
    endsAt: hostClock.isoAt(endsAtMs),
    endsInSec: Math.max(0, Math.ceil((endsAtMs - hostClock.nowMs()) / 1000)),
  })
  const { lifetime, stopped, onTtl: action } = record
  const removalMs = await core.lifetimes.removalOf(record)
  const endsAtMs = lifetime?.kind === "set" ? lifetime.endsAtMs : Number.POSITIVE_INFINITY
  if (removalMs !== undefined && removalMs < endsAtMs) {
    const isWarned = (stopped?.warnedAtMs ?? null) !== null
    return { ...at(removalMs), action: "destroy", reason: "stopped_retention", isWarned }
  }
  if (lifetime?.kind === "set")
    return { ...at(endsAtMs), action, reason: "ttl", isWarned: lifetime.warnedAtMs !== null }
  const isOver = lifetime?.kind === "ended"
  return isOver ? { endsAt: null, endsInSec: null, action, reason: "ttl", isWarned: true } : null
}

async function whyPresent(core: Parts, account: Account, record: SandboxRecord): Promise<Why> {
  const nowMs = core.clock.nowMs()
  const { state } = record
  const touch = core.touches.get(record.id)
  const failed = core.failedStarts.find(record.id)
  const isAsked = state.kind === "hot" && core.space.heldOf(record) === undefined
  const guest = isAsked ? core.guests.get(record.id) : undefined
  const pong = await guest?.ask({ op: "ping" }, { deadlineMs: pingDeadlineMs }).catch(() => undefined)
  const held = core.space.heldOf(record) ?? null
  const end = await core.host.machines.lastEndOf(record.id)
  const about = {
    destroyedAt: null,
    ends: await pastEnds(core, account, record.id),
    panicConsole: end?.how === "panic" ? end.console.trim().slice(-panicCharacters) : null,
    held,
    rootReadOnly: pong?.rootReadOnly ?? null,
    lastTouch: touch
      ? { what: touch.what, secondsAgo: Math.max(0, Math.round((nowMs - touch.atMs) / 1000)) }
      : null,
    startedFromDisk: record.bootReason,
    failedStarts: failed ?? null,
    failingServices: await failingServices(record, guest),
    lifetime: await lifetimeOf(core, record),
  }
  const decision = core.thermal.explain(record, nowMs)
  if (decision) {
    const facts = core.thermal.facts(record, nowMs)
    return {
      thermal: state.kind === "warm" ? "warm" : "hot",
      reason: decision.reason,
      keepsAwake: decision.keepsAwake,
      openStreams: facts?.openStreams ?? 0,
      idleSec: Math.round(Math.min(facts?.unaskedForMs ?? 0, facts?.guestIdleForMs ?? 0) / 1000),
      changesInSec: decision.changesInMs === null ? null : Math.ceil(decision.changesInMs / 1000),
      changesTo: decision.changesInMs === null ? null : state.kind === "warm" ? "cold" : "warm",
      ...about,
    }
  }
  const quiet = {
    ...about,
    keepsAwake: [],
    openStreams: 0,
    idleSec: 0,
    changesInSec: null,
    changesTo: null,
  }
  if (held !== null)
    return {
      thermal: "warm",
      reason: `it is paused and resumes when there is space again: ${heldText(held)}`,
      ...quiet,
    }
  if (state.kind === "cold" && failed && failed.backOffSec > 0) {
    const reason = `${backOffText(record.name, failed)}; ${backOffHint(failed)}`
    return { thermal: "cold", reason, ...quiet }
  }
  if (state.kind === "cold") {
    const reason = state.hasSnapshot
      ? "it was stopped; its memory is on disk and the next request restores it"
      : `${state.reason ?? "it has no saved memory"}; the next request boots it from its disk`
    return { thermal: "cold", reason, ...quiet }
  }
  return { thermal: null, reason: `it is ${state.kind}`, ...quiet }
}
