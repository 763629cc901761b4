/**
 * Lifetimes: warns the owners of sandboxes whose time to live is nearly over and the clients that are connected to
 * them, and then pauses or destroys them; destroys sandboxes that have been stopped for longer than they are kept.
 * `rules/lifetime.ts` decides, by the host's clock. All of it is in the store, so another daemon goes on with it.
 */

import { decideLifetime, defaultsOf, type LifetimeDefaults, timesFrom } from "../rules/lifetime.ts"
import type { Lifetime } from "../store/lifetime.ts"
import type { SandboxSpec } from "../store/sandbox-spec.ts"
import type { SandboxRecord } from "../store/sandboxes.ts"
import { sleep } from "./clock.ts"
import type { Core, ForRemoval, ForSettle } from "./core.ts"
import { destroyByDaemon } from "./destroy.ts"
import { failureMeta } from "./failures.ts"
import type { LifetimePart } from "./parts.ts"
import { stopSandbox } from "./power.ts"
import { settle } from "./settle.ts"

type Parts = ForSettle & ForRemoval & Pick<Core, "hostClock" | "notices" | "turns">

const tickMs = 1000
const againMs = 30_000
/** Sandboxes whose end is worked on at once: each may write its memory to disk. */
const endsAtOnce = 4
const retentionEveryMs = 10_000
const hourMs = 3_600_000

export class Lifetimes implements LifetimePart {
  readonly #core: Parts
  readonly #acting = new Map<SandboxRecord["id"], Promise<void>>()
  #retentionAtMs = Number.NEGATIVE_INFINITY

  constructor(core: Parts) {
    this.#core = core
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await this.tick()
      } catch (error) {
        this.#core.log.error({ error }, "an iteration of the lifetime loop failed")
      }
      await sleep(this.#core.clock, tickMs, signal)
    }
  }

  defaultsOf(user: string): Pick<SandboxSpec, "ttlSec" | "onTtl"> {
    const { ttlMs, onTtl } = defaultsOf(this.#core.settings.lifetimes, user)
    return { ttlSec: ttlMs === 0 ? null : ttlMs / 1000, onTtl }
  }

  begin({ ttlSec }: Pick<SandboxSpec, "ttlSec">): Lifetime | null {
    if (ttlSec === null) return null
    const { warningMs } = this.#core.settings.lifetimes
    const times = timesFrom(this.#core.hostClock.nowMs(), { ttlMs: ttlSec * 1000, warningMs })
    return { kind: "set", ...times, warnedAtMs: null }
  }

  async removalOf({ state, stopped, userId }: SandboxRecord): Promise<number | undefined> {
    if (state.kind !== "cold" || !stopped) return undefined
    const user = await this.#core.store.users.nameOf(userId)
    const { stoppedRetentionMs } = defaultsOf(this.#core.settings.lifetimes, user)
    return stoppedRetentionMs === 0 ? undefined : stopped.sinceMs + stoppedRetentionMs
  }

  async tick(): Promise<void> {
    const { hostClock, store } = this.#core
    const nowMs = hostClock.nowMs()
    await this.#checkRetention(nowMs)
    if ((await store.lifetimes.nextDueOnHost()) === undefined) return
    await hostClock.keep()
    for (const id of await store.lifetimes.dueOnHost(nowMs)) {
      if (this.#acting.size >= endsAtOnce) break
      // A create, a copy or a wake that is going on comes first.
      if (this.#acting.has(id) || this.#core.turns.isTaken(id)) continue
      this.#track(id, this.#look(id))
    }
  }

  async idle(): Promise<void> {
    await Promise.all(this.#acting.values())
  }

  #track(id: SandboxRecord["id"], work: Promise<void>): void {
    this.#acting.set(
      id,
      work.finally(() => this.#acting.delete(id)),
    )
  }

  async #look(id: SandboxRecord["id"]): Promise<void> {
    try {
      await this.#core.turns.take(id, async () => {
        const record = await this.#core.store.sandboxes.get(id)
        if (record) await this.#lookAt(record)
      })
    } catch (error) {
      await this.#later(id, error)
    }
  }

  async #later(id: SandboxRecord["id"], error: unknown): Promise<void> {
    const { events, hostClock, log, store } = this.#core
    try {
      log.error({ sandbox: id, error }, "the end of a lifetime failed; retrying")
      const record = await store.sandboxes.get(id)
      if (!record) return
      await store.lifetimes.setDue(id, hostClock.nowMs() + againMs)
      const meta = { by: "daemon", ...failureMeta(error) }
      events.record({ type: "lifetime.end_failed", userId: record.userId, sandbox: record, meta })
    } catch (again) {
      log.error({ sandbox: id, error: again }, "a lifetime that could not be ended is tried again at once")
    }
  }

  /** Needs the sandbox's turn. */
  async #lookAt(record: SandboxRecord): Promise<void> {
    const { hostClock, settings, store } = this.#core
    const { id, lifetime } = record
    const nowMs = hostClock.nowMs()
    const { onTtl: action } = record
    if (record.isInBatch || record.state.kind === "creating")
      return await store.lifetimes.setDue(id, nowMs + tickMs)
    if (lifetime === null || record.state.kind === "destroying") return await store.lifetimes.setDue(id, null)
    if (lifetime.kind === "ended" && action !== "pause") return await store.lifetimes.setDue(id, null)
    // It was used after the pause at its end, or its times are another host's.
    if (lifetime.kind !== "set") return await store.lifetimes.set(id, this.begin(record))
    const openStreams = this.#core.guests.get(id)?.activity.openStreams ?? 0
    const isBusy = action !== "keep" && openStreams > 0
    const decision = decideLifetime({ ...lifetime, nowMs, isBusy }, settings.lifetimes)
    switch (decision.kind) {
      case "wait":
        return await store.lifetimes.setDue(
          id,
          isBusy ? Math.min(decision.untilMs, nowMs + tickMs) : decision.untilMs,
        )
      case "warn":
        return await this.#warn(record, lifetime, decision.endsAtMs)
      case "end":
        return await this.#end(record)
    }
  }

  async #warn(
    record: SandboxRecord,
    { warnAtMs, endsAtMs: plannedMs }: Extract<Lifetime, { kind: "set" }>,
    endsAtMs: number,
  ): Promise<void> {
    const { events, hostClock, notices, store } = this.#core
    const nowMs = hostClock.nowMs()
    const warned = { warnAtMs: endsAtMs - (plannedMs - warnAtMs), endsAtMs, warnedAtMs: nowMs }
    const endsAt = hostClock.isoAt(endsAtMs)
    const seconds = Math.ceil((endsAtMs - nowMs) / 1000)
    const { onTtl: action } = record
    const meta = { by: "daemon", action, ends_at: endsAt, seconds }
    events.record({ type: "lifetime.ending", userId: record.userId, sandbox: record, meta })
    // After a crash in between it is announced again.
    await store.lifetimes.set(record.id, { kind: "set", ...warned })
    if (action === "keep") return
    const text = `sandbox "${record.name}" is ${doneText[action]} in ${seconds} s: its time to live ends`
    notices.tell(record, { action, endsAt, text })
  }

  async #end(record: SandboxRecord): Promise<void> {
    const core = this.#core
    const { id, onTtl: action } = record
    const ended = { type: "lifetime.ended", userId: record.userId, sandbox: record } as const
    const meta = { by: "daemon", action, reason: "its time to live is over" }
    if (action === "destroy") {
      core.events.record({ ...ended, meta })
      return await destroyByDaemon(core, record, meta.reason)
    }
    if (action === "pause") await this.#pause(id)
    await core.store.lifetimes.set(id, { kind: "ended" })
    core.events.record({ ...ended, meta })
  }

  async #pause(id: SandboxRecord["id"]): Promise<void> {
    const core = this.#core
    const settled = await settle(core, id)
    if (!settled || settled.state.kind === "cold") return
    const startedAt = core.clock.nowMs()
    const { kind } = await stopSandbox(core, settled, {
      isWanted: true,
      ending: { cause: "stopped", hint: "its time to live was over; the next request continues it" },
    })
    if (kind !== "cold") throw new Error(`it is ${kind} after it was saved`)
    const meta = {
      by: "daemon",
      reason: "its time to live is over",
      ms: Math.round(core.clock.nowMs() - startedAt),
    }
    core.events.record({ type: "sandbox.stopped", userId: settled.userId, sandbox: settled, meta })
  }

  // Stopped sandboxes.

  async #checkRetention(nowMs: number): Promise<void> {
    const { settings, store } = this.#core
    const { stoppedRetentionMs, users } = settings.lifetimes
    const isUsed =
      stoppedRetentionMs > 0 || Object.values(users).some((one) => (one.stoppedRetentionMs ?? 0) > 0)
    if (!isUsed || nowMs - this.#retentionAtMs < retentionEveryMs) return
    this.#retentionAtMs = nowMs
    await this.#core.hostClock.keep()
    for (const record of await store.sandboxes.listOnHost()) {
      if (record.state.kind !== "cold" || this.#acting.has(record.id) || this.#acting.size >= endsAtOnce)
        continue
      const retention = defaultsOf(settings.lifetimes, await store.users.nameOf(record.userId))
      if (retention.stoppedRetentionMs === 0) continue
      this.#track(record.id, this.#lookAtStopped(record.id, retention))
    }
  }

  async #lookAtStopped(id: SandboxRecord["id"], { stoppedRetentionMs }: LifetimeDefaults): Promise<void> {
    const core = this.#core
    const work = async () => {
      const nowMs = core.hostClock.nowMs()
      const record = await core.store.sandboxes.get(id)
      if (record?.state.kind !== "cold") return
      const { stopped } = record
      if (!stopped) return await core.store.lifetimes.setStopped(id, { sinceMs: nowMs, warnedAtMs: null })
      const endsAtMs = stopped.sinceMs + stoppedRetentionMs
      const leadMs = Math.min(hourMs, stoppedRetentionMs / 2)
      const facts = {
        warnAtMs: endsAtMs - leadMs,
        endsAtMs,
        nowMs,
        warnedAtMs: stopped.warnedAtMs,
        isBusy: false,
      }
      const decision = decideLifetime(facts, { graceMs: 0 })
      if (decision.kind === "end")
        return await destroyByDaemon(core, record, "it was stopped for longer than it is kept")
      if (decision.kind === "wait") return
      const ends_at = core.hostClock.isoAt(decision.endsAtMs)
      const seconds = Math.ceil((decision.endsAtMs - nowMs) / 1000)
      const meta = { by: "daemon", action: "destroy", reason: "it is stopped", ends_at, seconds }
      core.events.record({ type: "lifetime.ending", userId: record.userId, sandbox: record, meta })
      await core.store.lifetimes.setStopped(id, { ...stopped, warnedAtMs: nowMs })
    }
    try {
      await core.turns.take(id, work)
    } catch (error) {
      core.log.error(
        { sandbox: id, error },
        "a sandbox that is stopped for long could not be destroyed; retrying",
      )
    }
  }
}

const doneText = { pause: "paused", destroy: "destroyed" } as const
