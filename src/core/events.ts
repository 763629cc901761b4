/**
 * The record of what happens. `record` only remembers and returns: it can neither fail nor delay what it speaks of. Soon after,
 * everything remembered is written in one insert; what a crash of the daemon cuts off is that moment. Followers hear at once.
 */

import type { EventType } from "../contract/event.ts"
import { limits } from "../contract/limits.ts"
import { RateLimiter } from "../rules/rate-limit.ts"
import type { EventFilter, EventMeta, EventRecord } from "../store/events.ts"
import type { Store } from "../store/store.ts"
import type { Log } from "./bounded-log.ts"
import type { Clock } from "./clock.ts"

const writeDelayMs = 50
const pruneEveryMs = 3_600_000
/** What waits while the database cannot be written; more is dropped and counted. */
const unwrittenMax = 10_000
/** Somebody may try keys in a loop: one event tells of all within this time. */
const refusedKeysMs = 60_000
/** Of one sandbox, of what its guest or strangers cause and no request of its owner's; more is counted. */
const uncalledRate = { burst: 200, perMinute: 60 }
const sandboxesMax = 10_000
/** So that many events in a short time do not wait for the hour. */
const pruneEveryEvents = 10_000
/** Of one text in an event; a guest may have chosen it. */
const textCharactersMax = 2000

export type NewEvent = {
  type: EventType
  userId?: string | null
  sandbox?: { id: string; name: string } | undefined
  meta?: EventMeta
}

export class EventLog {
  readonly #store: Store
  readonly #log: Log
  readonly #clock: Clock
  readonly #onRecord: (event: EventRecord) => void
  readonly #uncalled = new RateLimiter(uncalledRate, { bucketsMax: sandboxesMax })
  readonly #dropped = new Map<string, number>()
  #sincePruned = 0
  readonly #subscriptions = new Set<Subscription>()
  #unwritten: EventRecord[] = []
  #timer: Timer | undefined
  #writing: Promise<void> = Promise.resolve()
  #refusedKeys = 0
  #refusedKeysTimer: Timer | undefined

  constructor(options: { store: Store; log: Log; clock: Clock; onRecord: (event: EventRecord) => void }) {
    this.#store = options.store
    this.#log = options.log
    this.#clock = options.clock
    this.#onRecord = options.onRecord
  }

  record(event: NewEvent): void {
    const dropped = this.#takeDropped(event)
    if (dropped === "this too") return
    const record: EventRecord = {
      id: Bun.randomUUIDv7(),
      at: new Date().toISOString(),
      type: event.type,
      userId: event.userId ?? null,
      sandboxId: event.sandbox?.id ?? null,
      sandboxName: event.sandbox?.name ?? null,
      meta: { ...withShortTexts(event.meta ?? {}), ...(dropped !== undefined && { dropped }) },
    }
    this.#onRecord(record)
    for (const subscription of this.#subscriptions) subscription.offer(record)
    if (this.#unwritten.length >= unwrittenMax) this.#unwritten.shift()
    this.#unwritten.push(record)
    this.#timer ??= setTimeout(() => void this.flush(), writeDelayMs)
  }

  /** How many of the sandbox were dropped since its last one; "this too": there are too many, and it is counted with them. */
  #takeDropped({ sandbox, meta }: NewEvent): number | "this too" | undefined {
    if (sandbox === undefined || (meta?.["by"] !== "guest" && meta?.["by"] !== "daemon")) return undefined
    const before = this.#dropped.get(sandbox.id)
    if (this.#uncalled.take(sandbox.id, this.#clock.nowMs()).kind === "allowed") {
      this.#dropped.delete(sandbox.id)
      return before
    }
    if (before !== undefined || this.#dropped.size < sandboxesMax)
      this.#dropped.set(sandbox.id, (before ?? 0) + 1)
    return "this too"
  }

  /** A key that is nobody's. Tells of the first at once, and of the rest together. */
  refusedKey(): void {
    this.#refusedKeys++
    if (this.#refusedKeysTimer) return
    const tell = () => {
      this.record({ type: "auth.failed", meta: { count: this.#refusedKeys } })
      this.#refusedKeys = 0
    }
    tell()
    this.#refusedKeysTimer = setTimeout(() => {
      this.#refusedKeysTimer = undefined
      if (this.#refusedKeys > 0) tell()
    }, refusedKeysMs)
    this.#refusedKeysTimer.unref()
  }

  /** Writes what is remembered. Never throws: an event that cannot be written is lost, and the log says so. */
  flush(): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#writing = this.#writing.then(async () => {
      const records = this.#unwritten
      this.#unwritten = []
      try {
        await this.#store.events.add(records)
        this.#sincePruned += records.length
        if (this.#sincePruned >= pruneEveryEvents) await this.#prune()
      } catch (error) {
        this.#log.error({ error, events: records.length }, "events could not be written")
      }
    })
    return this.#writing
  }

  async list(filter: EventFilter, limit: number): Promise<EventRecord[]> {
    await this.flush()
    return limit === 0 ? [] : this.#store.events.list(filter, limit)
  }

  /** Undefined: there are as many followers as there may be. */
  subscribe(filter: EventFilter): Subscription | undefined {
    if (this.#subscriptions.size >= limits.eventSubscribersMax) return undefined
    const subscription = new Subscription(filter, () => this.#subscriptions.delete(subscription))
    this.#subscriptions.add(subscription)
    return subscription
  }

  /** Removes what is too old, now and then, until the signal says stop. */
  async run(signal: AbortSignal): Promise<void> {
    const timer = setInterval(() => void this.#prune(), pruneEveryMs)
    timer.unref()
    signal.addEventListener("abort", () => clearInterval(timer), { once: true })
    await this.#prune()
  }

  async #prune(): Promise<void> {
    this.#sincePruned = 0
    try {
      const removed = await this.#store.events.prune(Date.now())
      if (removed > 0) this.#log.info({ removed }, "removed old events")
    } catch (error) {
      this.#log.error({ error }, "old events could not be removed")
    }
  }

  /** Ends every follower's stream. */
  close(): void {
    clearTimeout(this.#refusedKeysTimer)
    for (const subscription of this.#subscriptions) subscription.close()
  }
}

/** What one follower has not read yet. One that falls behind the bound is cut, so that it costs nobody anything. */
export class Subscription {
  readonly #filter: EventFilter
  readonly #onClose: () => void
  #waiting: EventRecord[] = []
  #isClosed = false
  #wake: () => void = () => undefined
  isCut = false

  constructor(filter: EventFilter, onClose: () => void) {
    this.#filter = filter
    this.#onClose = onClose
  }

  offer(record: EventRecord): void {
    if (!fits(record, this.#filter)) return
    if (this.#waiting.length >= limits.eventBacklogMax) {
      this.isCut = true
      this.#waiting = []
      return this.close()
    }
    this.#waiting.push(record)
    this.#wake()
  }

  /** The next one; undefined: it is over. `"quiet"`: nothing happened for that long. */
  async next(options: { quietMs: number }): Promise<EventRecord | "quiet" | undefined> {
    if (this.#waiting.length === 0 && !this.#isClosed) {
      const { promise, resolve } = Promise.withResolvers<void>()
      const timer = setTimeout(resolve, options.quietMs)
      this.#wake = resolve
      await promise
      clearTimeout(timer)
    }
    return this.#waiting.shift() ?? (this.#isClosed ? undefined : "quiet")
  }

  close(): void {
    this.#isClosed = true
    this.#onClose()
    this.#wake()
  }
}

function withShortTexts(meta: EventMeta): EventMeta {
  const shortened = Object.entries(meta).map(([name, value]) => [
    name,
    typeof value === "string" ? value.slice(0, textCharactersMax) : value,
  ])
  return Object.fromEntries(shortened)
}

function fits(record: EventRecord, filter: EventFilter): boolean {
  return (
    (filter.userId === undefined || record.userId === filter.userId) &&
    (filter.type === undefined || record.type.startsWith(filter.type)) &&
    (filter.sandbox === undefined ||
      record.sandboxId === filter.sandbox ||
      record.sandboxName === filter.sandbox) &&
    (filter.since === undefined || record.at >= filter.since)
  )
}
