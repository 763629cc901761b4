/**
 * Metrics for the operator in Prometheus format. Most are counted from events as they are recorded; gauges are read on
 * request.
 */

import { Counter, Gauge, Histogram, Registry } from "prom-client"
import type { EventRecord } from "../store/events.ts"
import type { Store } from "../store/store.ts"
import type { BoundedLog } from "./bounded-log.ts"
import type { Clock } from "./clock.ts"
import type { Host } from "./host.ts"
import type { PoolPart, ZygotePart } from "./parts.ts"

/** Sources of the gauges' values. */
type Sources = {
  store: Pick<Store, "sandboxes" | "snapshots">
  host: Pick<Host, "disks" | "machines">
  log: Pick<BoundedLog, "droppedCount">
  clock: Clock
  startedAt: number
  pool: () => Pick<PoolPart, "readyCount">
  zygotes: () => Pick<ZygotePart, "readyCount">
}

const buckets = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300]

export class Metrics {
  readonly #registry = new Registry()
  readonly #events = this.#counter("bhatti_events_total", "Recorded events", ["type"])
  readonly #creates = this.#histogram("bhatti_create_seconds", "Creating a sandbox", ["from"])
  readonly #wakes = this.#histogram("bhatti_wake_seconds", "Waking a sandbox", ["from", "how"])
  readonly #saves = this.#histogram("bhatti_save_seconds", "Writing a sandbox's memory to disk", ["by"])
  readonly #execs = this.#counter("bhatti_execs_total", "Commands started", [])
  readonly #execSeconds = this.#histogram("bhatti_exec_seconds", "Commands, from start to end", [])
  readonly #pool = this.#counter(
    "bhatti_pool_creates_total",
    "Creates from images, by whether the pool had one",
    ["result"],
  )
  readonly #forks = this.#counter("bhatti_forks_total", "Forks of heated machines, by result", ["result"])
  readonly #connections = this.#counter(
    "bhatti_published_connections_total",
    "Connections to published ports",
    ["result"],
  )

  constructor({ store, host, log, clock, startedAt, pool, zygotes }: Sources) {
    this.#gauge("bhatti_sandboxes", "Sandboxes by state", ["state"], async (gauge) => {
      gauge.reset()
      for (const state of ["hot", "warm", "cold"]) gauge.set({ state }, 0)
      for (const { state } of await store.sandboxes.listOnHost()) gauge.inc({ state: state.kind })
    })
    this.#gauge("bhatti_pool_ready", "Sandboxes that wait in the pool", [], async (gauge) => {
      gauge.set(pool().readyCount)
    })
    this.#gauge("bhatti_zygotes_ready", "Heated machines that others are forked from", [], async (gauge) => {
      gauge.set(zygotes().readyCount)
    })
    this.#gauge("bhatti_snapshot_bytes", "Space that named snapshots take", [], async (gauge) => {
      const all = await store.snapshots.listOnHost()
      gauge.set(all.reduce((sum, { bytes }) => sum + bytes, 0))
    })
    this.#gauge("bhatti_disk_free_bytes", "Free space where the data directory is", [], async (gauge) => {
      gauge.set((await host.disks.freeMib()) * 1024 * 1024)
    })
    this.#gauge(
      "bhatti_memory_available_bytes",
      "Memory that sandboxes may still take",
      [],
      async (gauge) => {
        gauge.set(host.machines.availableMemoryMib() * 1024 * 1024)
      },
    )
    this.#gauge("bhatti_daemon_memory_bytes", "Resident memory of the daemon", [], async (gauge) => {
      gauge.set(process.memoryUsage.rss())
    })
    this.#gauge("bhatti_log_lines_dropped", "Log lines beyond their subject's rate", [], async (gauge) => {
      gauge.set(log.droppedCount)
    })
    this.#gauge("bhatti_daemon_uptime_seconds", "Since the daemon started", [], async (gauge) => {
      gauge.set((clock.nowMs() - startedAt) / 1000)
    })
  }

  onEvent({ type, meta }: EventRecord): void {
    this.#events.inc({ type })
    const seconds = typeof meta["ms"] === "number" ? meta["ms"] / 1000 : undefined
    if (seconds === undefined) return
    const word = (key: string) => String(meta[key] ?? "")
    if (type === "sandbox.created") this.#creates.observe({ from: word("from") }, seconds)
    else if (type === "thermal.wake") this.#wakes.observe({ from: word("from"), how: word("how") }, seconds)
    else if (type === "thermal.snapshot" || type === "sandbox.stopped")
      this.#saves.observe({ by: word("by") }, seconds)
  }

  execStarted(): void {
    this.#execs.inc()
  }

  execEnded(ms: number): void {
    this.#execSeconds.observe(ms / 1000)
  }

  poolAsked(hadOne: boolean): void {
    this.#pool.inc({ result: hadOne ? "hit" : "miss" })
  }

  forked(result: "done" | "failed"): void {
    this.#forks.inc({ result })
  }

  published(result: "connected" | "unknown" | "refused" | "failed"): void {
    this.#connections.inc({ result })
  }

  async read(): Promise<{ text: string; contentType: string }> {
    return { text: await this.#registry.metrics(), contentType: this.#registry.contentType }
  }

  #counter(name: string, help: string, labelNames: string[]): Counter {
    return new Counter({ name, help, labelNames, registers: [this.#registry] })
  }

  #histogram(name: string, help: string, labelNames: string[]): Histogram {
    return new Histogram({ name, help, labelNames, buckets, registers: [this.#registry] })
  }

  #gauge(name: string, help: string, labelNames: string[], look: (gauge: Gauge) => Promise<void>): void {
    const gauge: Gauge = new Gauge({
      name,
      help,
      labelNames,
      registers: [this.#registry],
      collect: () => look(gauge),
    })
  }
}
