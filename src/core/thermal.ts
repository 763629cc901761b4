/**
 * The thermal loop: at its own pace it gathers facts about every running sandbox, asks the rule, and acts within the
 * sandbox's turn. One that hangs holds up no other.
 */

import { busyCpuShare, decideThermal, type ThermalDecision, type ThermalFacts } from "../rules/thermal.ts"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Core } from "./core.ts"
import { machineOf } from "./machine-of.ts"
import { pauseSandbox, stopSandbox } from "./power.ts"

const tickMs = 2000
/** Saving writes a lot; more at once would only take longer each. */
const savesAtOnce = 2

/** What is known of a running machine between two ticks. Times are the clock's. */
type Watch = { pid: number; cpuMs: number; atMs: number; busyAtMs: number; warmSinceMs: number }

export class Thermal {
  readonly #core: Core
  readonly #watches = new Map<SandboxRecord["id"], Watch>()
  readonly #acting = new Set<SandboxRecord["id"]>()
  #saving = 0

  constructor(core: Core) {
    this.#core = core
  }

  /** Runs until the signal says stop. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await this.tick(this.#core.clock.nowMs())
      } catch (error) {
        this.#core.log.error({ error }, "the thermal loop stumbled")
      }
      await pause(tickMs, signal)
    }
  }

  async tick(nowMs: number): Promise<void> {
    const records = await this.#core.store.sandboxes.listAll()
    const known = new Set(records.map(({ id }) => id))
    for (const id of this.#watches.keys()) if (!known.has(id)) this.#watches.delete(id)
    for (const record of records) {
      const facts = this.facts(record, nowMs)
      if (!facts || this.#acting.has(record.id)) continue
      const { action, reason } = decideThermal(facts, this.#core.settings.thermal)
      if (action === "stay" || (action === "save" && this.#saving >= savesAtOnce)) continue
      void this.#act(record, action, reason)
    }
  }

  /** Why a sandbox is in its state, and when that changes by itself. */
  explain(record: SandboxRecord, nowMs: number): ThermalDecision | undefined {
    const facts = this.facts(record, nowMs)
    return facts && decideThermal(facts, this.#core.settings.thermal)
  }

  facts(record: SandboxRecord, nowMs: number): ThermalFacts | undefined {
    const machine = machineOf(this.#core, record)
    const { kind } = record.state
    if (!machine || (kind !== "hot" && kind !== "warm")) return undefined
    const cpuMs = this.#core.host.machines.cpuMs(machine)
    const { pid } = machine.process
    let watch = this.#watches.get(record.id)
    if (watch?.pid !== pid) {
      watch = { pid, cpuMs, atMs: nowMs, busyAtMs: nowMs, warmSinceMs: nowMs }
      this.#watches.set(record.id, watch)
    }
    if (cpuMs - watch.cpuMs > (nowMs - watch.atMs) * busyCpuShare) watch.busyAtMs = nowMs
    // A glance between two ticks is too short to tell work from noise.
    if (nowMs - watch.atMs >= tickMs / 2) {
      watch.cpuMs = cpuMs
      watch.atMs = nowMs
    }
    if (kind === "hot") watch.warmSinceMs = nowMs
    const activity = this.#core.guests.get(record.id)?.activity
    return {
      state: kind,
      keepHot: record.keepHot,
      allowCold: record.allowCold,
      openStreams: activity?.openStreams ?? 0,
      unaskedForMs: nowMs - (activity?.lastAtMs ?? nowMs),
      guestIdleForMs: nowMs - watch.busyAtMs,
      warmForMs: nowMs - watch.warmSinceMs,
    }
  }

  async #act(seen: SandboxRecord, action: "pause" | "save", reason: string): Promise<void> {
    const core = this.#core
    this.#acting.add(seen.id)
    if (action === "save") this.#saving++
    try {
      await core.turns.take(seen.id, async () => {
        // Since the decision somebody else may have had the turn.
        const record = await core.store.sandboxes.get(seen.id)
        if (!record || record.state.kind !== seen.state.kind) return
        const facts = this.facts(record, core.clock.nowMs())
        if (!facts || decideThermal(facts, core.settings.thermal).action !== action) return
        if (action === "pause") await pauseSandbox(core, record)
        else await stopSandbox(core, record)
        core.log.info({ sandbox: record.id, action, reason }, "thermal step")
      })
    } catch (error) {
      core.log.error({ sandbox: seen.id, action, error }, "a thermal step failed")
    } finally {
      this.#acting.delete(seen.id)
      if (action === "save") this.#saving--
    }
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms)
    signal.addEventListener(
      "abort",
      () => {
        clearTimeout(timer)
        resolve()
      },
      { once: true },
    )
  })
}
