/** The context of every capability: the store, the host, the connections to running guests, the turns. */

import type { PoolSettings } from "../rules/pool.ts"
import type { ThermalSettings } from "../rules/thermal.ts"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Store } from "../store/store.ts"
import { BoundedLog, type Log } from "./bounded-log.ts"
import { type Clock, systemClock } from "./clock.ts"
import { Doomed } from "./doomed.ts"
import { Reboots } from "./ends.ts"
import { EventLog } from "./events.ts"
import { FailedStarts } from "./failed-starts.ts"
import type { Guest, Host } from "./host.ts"
import { HostMemory } from "./host-memory.ts"
import { Keys } from "./keys.ts"
import { Metrics } from "./metrics.ts"
import type { Offer } from "./offer.ts"
import { Pool } from "./pool.ts"
import { Space } from "./space.ts"
import { Thermal } from "./thermal.ts"
import { Turns } from "./turns.ts"

export type CoreSettings = {
  thermal: ThermalSettings
  diskReserveMib: number
  memoryReserveMib: number
  /** Limit on the space of templates; above it unused ones are evicted. */
  templateDiskMib: number
  pool: PoolSettings
  /** Published ports answer at `scheme://ALIAS.domain:port/`. */
  publicAddress: { scheme: "http" | "https"; domain: string; port: number }
  offer: Offer
}

export type Core = {
  store: Store
  host: Host
  log: BoundedLog
  settings: CoreSettings
  keys: Keys
  clock: Clock
  turns: Turns
  /** The open channel to each running guest, by sandbox id. */
  guests: Map<SandboxRecord["id"], Guest>
  /** Sandboxes being destroyed: a request that gets their turn before the destroy does nothing. */
  doomed: Doomed
  /** Sandboxes that fail to start and back off. */
  failedStarts: FailedStarts
  reboots: Reboots
  memory: HostMemory
  /** Templates being built, by fingerprint-relevant key, so that concurrent creates share one build. */
  templatesInMaking: Map<string, Promise<unknown>>
  /** The step that a sandbox being created waits for, if any. */
  waits: Map<SandboxRecord["id"], string>
  startedAt: number
  thermal: Thermal
  space: Space
  pool: Pool
  events: EventLog
  metrics: Metrics
  /** The last request to each sandbox, and when it came. */
  touches: Map<SandboxRecord["id"], { what: string; atMs: number }>
  /** Set by the proxy: called when an alias is unpublished, to end its open connections. */
  onUnpublished: (alias: string) => void
}

export function newCore(options: {
  store: Store
  host: Host
  log: Log
  settings: CoreSettings
  clock?: Clock
}): Core {
  const { clock = systemClock } = options
  const log = new BoundedLog(options.log, clock)
  const parts: Omit<Core, "thermal" | "space" | "pool" | "events" | "metrics"> = {
    ...options,
    log,
    clock,
    keys: new Keys(options.store, log),
    turns: new Turns(),
    guests: new Map(),
    doomed: new Doomed(),
    failedStarts: new FailedStarts(clock),
    reboots: new Reboots(clock),
    memory: new HostMemory(options.host.machines, { reserveMib: options.settings.memoryReserveMib }),
    templatesInMaking: new Map(),
    startedAt: clock.nowMs(),
    touches: new Map(),
    waits: new Map(),
    onUnpublished: () => undefined,
  }
  const core = parts as Core
  core.metrics = new Metrics(core)
  core.events = new EventLog({
    store: options.store,
    log,
    clock,
    onRecord: (event) => core.metrics.onEvent(event),
  })
  core.thermal = new Thermal(core)
  core.space = new Space(core)
  core.pool = new Pool(core, options.settings.pool)
  return core
}
