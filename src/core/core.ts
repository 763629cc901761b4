/** The context of every capability: the store, the host, the connections to running guests, the turns. */

import type { LifetimeSettings } from "../rules/lifetime.ts"
import type { PoolSettings } from "../rules/pool.ts"
import type { ThermalSettings } from "../rules/thermal.ts"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Store } from "../store/store.ts"
import type { TaskRecord } from "../store/tasks.ts"
import type { BoundedLog } from "./bounded-log.ts"
import type { Clock } from "./clock.ts"
import type { Destroying } from "./destroying.ts"
import type { Endings } from "./endings.ts"
import type { EventLog } from "./events.ts"
import type { FailedStarts } from "./failed-starts.ts"
import type { GuestDefaults } from "./guest-defaults.ts"
import type { Guest, Host } from "./host.ts"
import type { HostClock } from "./host-clock.ts"
import type { HostMemory } from "./host-memory.ts"
import type { Keys } from "./keys.ts"
import type { Metrics } from "./metrics.ts"
import type { Notices } from "./notices.ts"
import type {
  GoingTask,
  HostImageBuild,
  LifetimePart,
  PoolPart,
  SpacePart,
  TemplateBuild,
  ThermalPart,
  ZygotePart,
} from "./parts.ts"
import type { Reboots } from "./reboots.ts"
import type { Turns } from "./turns.ts"

export type CoreSettings = {
  thermal: ThermalSettings
  diskReserveMib: number
  memoryReserveMib: number
  /** Limit on the space of templates; above it unused ones are evicted. */
  templateDiskMib: number
  pool: PoolSettings
  /** Why no machine of this host is forked; undefined if a trial decides. */
  whyCloned?: string | undefined
  /** Stopped sandboxes are woken by a fork where machines are forked. */
  forksWakes?: boolean
  /** Published ports answer at `scheme://ALIAS.domain:port/`. */
  publicAddress: { scheme: "http" | "https"; domain: string; port: number }
  guestDefaults: GuestDefaults
  images: ImageSettings
  lifetimes: LifetimeSettings
}

export type ImageSettings = {
  /** Completes short references; undefined: they are refused. */
  defaultRegistry: string | undefined
  /** The only ones that may be asked; empty: any. */
  allowedRegistries: readonly string[]
  /** Users may have the host's own images installed. */
  areMadeAtNeed: boolean
  /** Limit on an image's files. */
  imageMibMax: number
}

export type Core = {
  store: Store
  host: Host
  log: BoundedLog
  settings: CoreSettings
  keys: Keys
  clock: Clock
  /** The time that this host has been switched on, by which lifetimes end. */
  hostClock: HostClock
  turns: Turns
  /** The open channel to each running guest, by sandbox id. */
  guests: Map<SandboxRecord["id"], Guest>
  /** Sandboxes being destroyed: a request that gets their turn before the destroy does nothing. */
  destroying: Destroying
  /** Why channels to guests ended. */
  endings: Endings
  /** Sandboxes that fail to start and back off. */
  failedStarts: FailedStarts
  reboots: Reboots
  memory: HostMemory
  /** Templates being built, by fingerprint-relevant key, so that concurrent creates share one build. */
  templateBuilds: Map<string, TemplateBuild>
  /** Images of the host that are being made, by name. */
  hostImageBuilds: Map<string, HostImageBuild>
  /** The tasks that this daemon runs. */
  tasks: Map<TaskRecord["id"], GoingTask>
  /** Disks that a task has made or is about to use, before their rows say so; their numbers of users. */
  pinnedDisks: Map<string, number>
  /** The step that a sandbox being created waits for, if any. */
  waits: Map<SandboxRecord["id"], string>
  startedAt: number
  thermal: ThermalPart
  space: SpacePart
  pool: PoolPart
  zygotes: ZygotePart
  lifetimes: LifetimePart
  notices: Notices
  events: EventLog
  metrics: Metrics
  /** The last request to each sandbox, and when it came. */
  touches: Map<SandboxRecord["id"], { what: string; atMs: number }>
  /** When the daemon connected again by itself to a machine that ran on. */
  reconnects: WeakMap<Guest, number>
  /** Each front adds a listener, which ends its open connections to an alias that is unpublished. */
  onUnpublished: Set<(alias: string) => void>
  /** Called when the channel to a guest closes. */
  onChannelClosed: (id: SandboxRecord["id"], guest: Guest, reason: string) => Promise<void>
}

/** Parts of `Core` with only these ports of the host. */
export type OnHost<Port extends keyof Host> = { host: Pick<Host, Port> }

/** The parts that find a template, or make it. */
export type ForTemplate = OnHost<"disks" | "images" | "keptRows" | "templates"> &
  Pick<
    Core,
    | "clock"
    | "events"
    | "log"
    | "memory"
    | "pool"
    | "settings"
    | "space"
    | "store"
    | "templateBuilds"
    | "zygotes"
  >
/** The parts that connect to a guest and keep the channel. */
export type ForChannel = Pick<
  Core,
  | "clock"
  | "hostClock"
  | "store"
  | "guests"
  | "endings"
  | "events"
  | "reconnects"
  | "settings"
  | "zygotes"
  | "onChannelClosed"
> &
  OnHost<"machines" | "network">
/** The parts that start a machine. */
export type ForStart = ForChannel & Pick<Core, "log" | "memory" | "destroying"> & OnHost<"images">
/** The parts that wake a sandbox. */
export type ForWake = ForStart & Pick<Core, "clock" | "failedStarts"> & OnHost<"disks" | "templates">
/** The parts that settle a sandbox after a failure. */
export type ForSettle = ForWake & Pick<Core, "space" | "reboots">
/** The parts that a request to a sandbox uses: it waits for its turn, settles it and wakes it. */
export type ForRequest = ForSettle & Pick<Core, "lifetimes" | "turns" | "touches">
/** The parts that remove a sandbox, and retry it. */
export type ForRemoval = OnHost<"machines" | "disks" | "network"> &
  Pick<
    Core,
    | "store"
    | "turns"
    | "clock"
    | "log"
    | "guests"
    | "endings"
    | "failedStarts"
    | "reboots"
    | "touches"
    | "onUnpublished"
  >
