/**
 * The thermal loop: it periodically gathers facts about every running sandbox, asks the rule, and acts within the
 * sandbox's turn. A sandbox that hangs does not delay others.
 */

import { AppError } from "@bhatti/contract/errors"
import { ownGraceMs } from "../rules/template-clean-up.ts"
import {
  decideThermal,
  guestWork,
  isHeldByTimer,
  type ThermalDecision,
  type ThermalFacts,
} from "../rules/thermal.ts"
import type { SandboxRecord } from "../store/sandboxes.ts"
import { sleep } from "./clock.ts"
import type { Core, ForChannel, OnHost } from "./core.ts"
import type { Guest, Machine } from "./host.ts"
import { machineOf } from "./machine-of.ts"
import type { ThermalPart } from "./parts.ts"
import { pauseSandbox, stopSandbox } from "./power.ts"

type Parts = ForChannel &
  Pick<Core, "clock" | "log" | "memory" | "pool" | "space" | "touches" | "turns" | "zygotes"> &
  OnHost<"templates">

const tickMs = 2000
const timerDeadlineMs = 2000
/** A guest without a timer is asked again after this time, since programs work between two timers. */
const timerAgainMs = 1000
/** Writing is limited by the disk; more at once would only slow each down. */
const savesAtOnce = 2

/** Facts about a running machine that are kept between two ticks, with times by the clock. */
type Watch = {
  pid: number
  used: Used
  work: string
  atMs: number
  busyAtMs: number
  warmSinceMs: number
  /** When the first timer in the guest is due, by its last answer; afterwards it counts as work. */
  timerAtMs?: number
  /** When the guest last said that no program waits for a timer. */
  noTimerAtMs?: number
}
/** Resources a machine has used so far. */
type Used = { cpuMs: number; diskBytes: number; networkBytes: number }

export class Thermal implements ThermalPart {
  readonly #core: Parts
  readonly #watches = new Map<SandboxRecord["id"], Watch>()
  readonly #acting = new Set<SandboxRecord["id"]>()
  #saving = 0

  constructor(core: Parts) {
    this.#core = core
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await this.tick(this.#core.clock.nowMs())
      } catch (error) {
        this.#core.log.error({ error }, "an iteration of the thermal loop failed")
      }
      await sleep(this.#core.clock, tickMs, signal)
    }
  }

  async tick(nowMs: number): Promise<void> {
    const records = await this.#core.store.sandboxes.listOnHost()
    const known = new Set(records.map(({ id }) => id))
    for (const id of this.#watches.keys()) if (!known.has(id)) this.#watches.delete(id)
    const isMemoryShort = this.#core.memory.isShort
    if (isMemoryShort) {
      this.#core.pool.shed()
      this.#core.zygotes.shed()
      await this.#core.host.templates.releaseOwned({ unusedForMs: ownGraceMs })
    }
    const due = records.flatMap((record) => {
      const facts = this.facts(record, nowMs, isMemoryShort)
      if (!facts || this.#acting.has(record.id)) return []
      const { action, reason } = decideThermal(facts, this.#core.settings.thermal)
      return action === "stay" ? [] : [{ record, action, reason, warmForMs: facts.warmForMs }]
    })
    for (const { record, action, reason } of due.sort((one, other) => other.warmForMs - one.warmForMs)) {
      if (action === "save" && this.#saving >= savesAtOnce) continue
      void this.#act(record, action, reason)
    }
  }

  forget(id: SandboxRecord["id"]): void {
    this.#watches.delete(id)
  }

  explain(record: SandboxRecord, nowMs: number): ThermalDecision | undefined {
    const facts = this.facts(record, nowMs)
    return facts && decideThermal(facts, this.#core.settings.thermal)
  }

  facts(
    record: SandboxRecord,
    nowMs: number,
    isMemoryShort = this.#core.memory.isShort,
  ): ThermalFacts | undefined {
    const machine = machineOf(record)
    const { kind } = record.state
    if (!machine || (kind !== "hot" && kind !== "warm")) return undefined
    if (this.#core.space.heldOf(record) !== undefined) return undefined
    const used = this.#usedBy(record, machine)
    const { pid } = machine.process
    let watch = this.#watches.get(record.id)
    if (watch?.pid !== pid) {
      watch = { pid, used, work: "its start", atMs: nowMs, busyAtMs: nowMs, warmSinceMs: nowMs }
      this.#watches.set(record.id, watch)
    }
    // An interval much shorter than a tick cannot tell work from noise.
    if (nowMs - watch.atMs >= tickMs / 2) {
      const work = guestWork({
        elapsedMs: nowMs - watch.atMs,
        cpuMs: used.cpuMs - watch.used.cpuMs,
        diskBytes: used.diskBytes - watch.used.diskBytes,
        networkBytes: used.networkBytes - watch.used.networkBytes,
      })
      if (work !== undefined) {
        watch.work = work
        watch.busyAtMs = nowMs
      }
      watch.used = used
      watch.atMs = nowMs
    }
    if (watch.timerAtMs !== undefined && watch.timerAtMs <= nowMs) {
      watch.work = "a timer"
      watch.busyAtMs = Math.max(watch.busyAtMs, watch.timerAtMs)
      delete watch.timerAtMs
    }
    if (kind === "hot") watch.warmSinceMs = nowMs
    const guest = this.#core.guests.get(record.id)
    const activity = guest?.activity
    return {
      state: kind,
      keepHot: record.keepHot,
      allowCold: record.allowCold,
      warmAfterMs: record.warmAfterSec === null ? null : record.warmAfterSec * 1000,
      coldAfterMs: record.coldAfterSec === null ? null : record.coldAfterSec * 1000,
      openStreams: activity?.openStreams ?? 0,
      unaskedForMs: nowMs - (activity?.lastAtMs ?? nowMs),
      isReconnected: guest !== undefined && this.#isReconnected(record.id, guest),
      guestIdleForMs: nowMs - watch.busyAtMs,
      guestWork: watch.work,
      timerDueInMs: watch.timerAtMs === undefined ? null : watch.timerAtMs - nowMs,
      warmForMs: nowMs - watch.warmSinceMs,
      isMemoryShort,
    }
  }

  #isReconnected(id: SandboxRecord["id"], guest: Guest): boolean {
    const { reconnects, touches } = this.#core
    const atMs = reconnects.get(guest)
    return atMs !== undefined && (touches.get(id)?.atMs ?? Number.NEGATIVE_INFINITY) < atMs
  }

  #usedBy(_record: SandboxRecord, machine: Machine): Used {
    return this.#core.host.machines.usageOf(machine)
  }

  /** Asks the guest that is about to be paused, twice if needed. A guest that cannot answer is paused. */
  async #isHeldByTimer(record: SandboxRecord): Promise<boolean> {
    const { clock, guests, log, memory, settings } = this.#core
    if (settings.thermal.timerWindowMs === 0) return false
    try {
      const answer = await guests.get(record.id)?.ask({ op: "nextTimer" }, { deadlineMs: timerDeadlineMs })
      const watch = this.#watches.get(record.id)
      if (!answer || !watch) return false
      const facts = { timerDueInMs: answer.dueMs, isMemoryShort: memory.isShort }
      const nowMs = clock.nowMs()
      // A guest with many threads needs CPU time to answer, which does not count as a program's work.
      const machine = machineOf(record)
      if (machine) Object.assign(watch, { used: this.#usedBy(record, machine), atMs: nowMs })
      if (answer.dueMs !== null && isHeldByTimer(facts, settings.thermal)) {
        watch.timerAtMs = nowMs + answer.dueMs
        return true
      }
      if (memory.isShort) return false
      // The first answer stays valid until something works inside again.
      const firstAtMs = watch.noTimerAtMs ?? Number.NEGATIVE_INFINITY
      if (firstAtMs < watch.busyAtMs) watch.noTimerAtMs = nowMs
      else if (nowMs - firstAtMs >= timerAgainMs) return false
      return true
    } catch (error) {
      log.info({ sandbox: record.id, error }, "a guest does not say when its next timer is due")
      return false
    }
  }

  async #act(seen: SandboxRecord, action: "pause" | "save", reason: string): Promise<void> {
    const core = this.#core
    this.#acting.add(seen.id)
    if (action === "save") this.#saving++
    try {
      await core.turns.take(seen.id, async () => {
        // Another operation may have had the turn since the decision.
        const record = await core.store.sandboxes.get(seen.id)
        if (!record || record.state.kind !== seen.state.kind) return
        const facts = this.facts(record, core.clock.nowMs())
        if (!facts || decideThermal(facts, core.settings.thermal).action !== action) return
        if (action === "pause" && (await this.#isHeldByTimer(record))) return
        const startedAt = core.clock.nowMs()
        const isDone = action === "pause" ? await pauseSandbox(core, record) : await stopSandbox(core, record)
        if (!isDone) return
        core.events.record({
          type: action === "pause" ? "thermal.pause" : "thermal.snapshot",
          userId: record.userId,
          sandbox: record,
          meta: { by: "daemon", reason, ms: Math.round(core.clock.nowMs() - startedAt) },
        })
        core.log.info({ sandbox: record.id, action, reason }, "thermal step")
      })
    } catch (error) {
      core.log.error({ sandbox: seen.id, action, error }, "a thermal step failed")
      core.events.record({
        type: "thermal.snapshot_failed",
        userId: seen.userId,
        sandbox: seen,
        meta: {
          by: "daemon",
          action,
          ...(error instanceof AppError ? { code: error.code, reason: error.message } : { code: "internal" }),
        },
      })
    } finally {
      this.#acting.delete(seen.id)
      if (action === "save") this.#saving--
    }
  }
}
