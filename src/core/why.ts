/** Explains to a person why a sandbox is in its state. */

import type { Why } from "@bhatti/contract/sandbox"
import type { Account } from "../store/users.ts"
import type { Core } from "./core.ts"
import { restHint, restText } from "./failed-starts.ts"
import { findSandbox } from "./find.ts"
import { heldText } from "./space.ts"

/** Limit on the console text of a kernel that panicked. */
const panicCharacters = 8192

/** A busy guest is not waited for. */
const pingDeadlineMs = 2000

export async function whySandbox(core: Core, account: Account, nameOrId: string): Promise<Why> {
  const record = await findSandbox(core, account, nameOrId)
  const nowMs = core.clock.nowMs()
  const { state } = record
  const touch = core.touches.get(record.id)
  const failed = core.failedStarts.find(record.id)
  const isAsked = state.kind === "hot" && core.space.heldOf(record) === undefined
  const guest = isAsked ? core.guests.get(record.id) : undefined
  const pong = await guest?.ping({ deadlineMs: pingDeadlineMs }).catch(() => undefined)
  const held = core.space.heldOf(record) ?? null
  const end = await core.host.machines.lastEndIn(core.host.disks.directoryOf(record.id))
  const about = {
    panic_console: end?.how === "panic" ? end.console.trim().slice(-panicCharacters) : null,
    held,
    root_read_only: pong?.rootReadOnly ?? null,
    last_touch: touch
      ? { what: touch.what, seconds_ago: Math.max(0, Math.round((nowMs - touch.atMs) / 1000)) }
      : null,
    started_from_disk: record.bootReason,
    failed_starts: failed
      ? { in_a_row: failed.inARow, reason: failed.reason, rest_seconds: failed.restSec }
      : null,
  }
  const decision = core.thermal.explain(record, nowMs)
  if (decision) {
    const facts = core.thermal.facts(record, nowMs)
    return {
      thermal: state.kind === "warm" ? "warm" : "hot",
      reason: decision.reason,
      keeps_awake: decision.keepsAwake,
      open_streams: facts?.openStreams ?? 0,
      idle_seconds: Math.round(Math.min(facts?.unaskedForMs ?? 0, facts?.guestIdleForMs ?? 0) / 1000),
      changes_in_seconds: decision.changesInMs === null ? null : Math.ceil(decision.changesInMs / 1000),
      changes_to: decision.changesInMs === null ? null : state.kind === "warm" ? "cold" : "warm",
      ...about,
    }
  }
  const quiet = {
    ...about,
    keeps_awake: [],
    open_streams: 0,
    idle_seconds: 0,
    changes_in_seconds: null,
    changes_to: null,
  }
  if (held !== null)
    return {
      thermal: "warm",
      reason: `it is paused, and goes on when there is room: ${heldText(held)}`,
      ...quiet,
    }
  if (state.kind === "cold" && failed && failed.restSec > 0) {
    const reason = `${restText(record.name, failed)}; ${restHint(record.name, failed)}`
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
