/** Puts the core together: each part gets what it needs. */

import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Store } from "../store/store.ts"
import { BoundedLog, type Log } from "./bounded-log.ts"
import { type Clock, systemClock } from "./clock.ts"
import type { Core, CoreSettings } from "./core.ts"
import { Destroying } from "./destroying.ts"
import { Endings } from "./endings.ts"
import { EventLog } from "./events.ts"
import { FailedStarts } from "./failed-starts.ts"
import type { Guest, Host } from "./host.ts"
import { HostClock } from "./host-clock.ts"
import { HostMemory } from "./host-memory.ts"
import { Keys } from "./keys.ts"
import { Lifetimes } from "./lifetimes.ts"
import { Metrics } from "./metrics.ts"
import { Notices } from "./notices.ts"
import { Pool } from "./pool.ts"
import { Reboots } from "./reboots.ts"
import { onChannelClosed } from "./reconnect.ts"
import { Space } from "./space.ts"
import { Thermal } from "./thermal.ts"
import { Turns } from "./turns.ts"
import { Zygotes } from "./zygotes.ts"

type Options = { store: Store; host: Host; log: Log; settings: Given; clock?: Clock }
type Given = Omit<CoreSettings, "images" | "lifetimes"> & Partial<Pick<CoreSettings, "images" | "lifetimes">>

/** Without the operator's settings of images, as in a process that only makes templates. */
const imageDefaults: CoreSettings["images"] = {
  defaultRegistry: undefined,
  allowedRegistries: [],
  areMadeAtNeed: true,
  imageMibMax: 20_480,
}

const lifetimeDefaults: CoreSettings["lifetimes"] = {
  ttlMs: 0,
  onTtl: "pause",
  stoppedRetentionMs: 0,
  users: {},
  warningMs: 60_000,
  graceMs: 30_000,
}

export function newCore(options: Options): Core {
  return new Assembly(options)
}

class Assembly implements Core {
  readonly store: Store
  readonly host: Host
  readonly settings: CoreSettings
  readonly clock: Clock
  readonly hostClock: HostClock
  readonly log: BoundedLog
  readonly keys: Keys
  readonly turns = new Turns()
  readonly guests = new Map<SandboxRecord["id"], Guest>()
  readonly destroying = new Destroying()
  readonly endings: Endings
  readonly failedStarts: FailedStarts
  readonly reboots: Reboots
  readonly memory: HostMemory
  readonly templateBuilds: Core["templateBuilds"] = new Map()
  readonly hostImageBuilds: Core["hostImageBuilds"] = new Map()
  readonly tasks: Core["tasks"] = new Map()
  readonly pinnedDisks: Core["pinnedDisks"] = new Map()
  readonly waits = new Map<SandboxRecord["id"], string>()
  readonly touches = new Map<SandboxRecord["id"], { what: string; atMs: number }>()
  readonly reconnects: Core["reconnects"] = new WeakMap()
  readonly startedAt: number
  readonly metrics: Metrics
  readonly events: EventLog
  readonly thermal: Thermal
  readonly lifetimes: Lifetimes
  readonly notices = new Notices()
  readonly space: Space
  readonly pool: Pool
  readonly zygotes: Zygotes
  readonly onUnpublished: Core["onUnpublished"] = new Set()

  constructor({ store, host, log, settings, clock = systemClock }: Options) {
    this.store = store
    this.host = host
    this.settings = { images: { ...imageDefaults }, lifetimes: { ...lifetimeDefaults }, ...settings }
    this.clock = clock
    this.hostClock = new HostClock({ clock, store })
    this.log = new BoundedLog(log, clock)
    this.keys = new Keys(store, { log: this.log, clock })
    this.endings = new Endings(clock)
    this.failedStarts = new FailedStarts(clock)
    this.reboots = new Reboots(clock)
    this.memory = new HostMemory(host.machines, { reserveMib: settings.memoryReserveMib })
    this.startedAt = clock.nowMs()
    const { startedAt } = this
    const metrics = new Metrics({
      store,
      host,
      log: this.log,
      clock,
      startedAt,
      pool: () => this.pool,
      zygotes: () => this.zygotes,
    })
    this.metrics = metrics
    this.events = new EventLog({ store, log: this.log, clock, onRecord: (event) => metrics.onEvent(event) })
    this.thermal = new Thermal(this)
    this.lifetimes = new Lifetimes(this)
    this.space = new Space(this)
    this.zygotes = new Zygotes(this, {
      inAdvance: settings.pool.sizeMax > 0,
      wakes: settings.forksWakes ?? false,
      whyCloned: settings.whyCloned,
    })
    this.pool = new Pool(this, settings.pool)
  }

  onChannelClosed(id: SandboxRecord["id"], guest: Guest, reason: string): Promise<void> {
    return onChannelClosed(this, id, guest, reason)
  }
}
