/**
 * The record of events. `record` only queues and returns: it can neither fail nor delay its caller. Soon afterwards one
 * insert writes all queued events; a crash of the daemon loses that moment. Followers receive events at once.
 */

import type { EventType } from "@bhatti/contract/event-types"
import { limits } from "@bhatti/contract/limits"
import { RateLimiter } from "../lib/rate-limit.ts"
import type { EventFilter, EventMeta, EventRecord } from "../store/events.ts"
import type { Store } from "../store/store.ts"
import type { Log } from "./bounded-log.ts"
import { type Alarm, type Clock, isoNow, sleep } from "./clock.ts"

const writeDelayMs = 50
const pruneEveryMs = 3_600_000
/** Limit on events queued while the database cannot be written; more are dropped and counted. */
const unwrittenMax = 10_000
/** Refused keys within this time share one event, since a client may try keys in a loop. */
const refusedKeysMs = 60_000
/** Rate per sandbox of events that its guest or strangers cause without a request of its owner; more are counted. */
const uncalledRate = { burst: 200, perMinute: 60 }
const sandboxesMax = 10_000
/** Bursts of events trigger pruning early, before the hourly run. */
const pruneEveryEvents = 10_000
/** Limit per text in an event; a guest may have chosen it. */
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
  #timer: Alarm | undefined
  #writing: Promise<void> = Promise.resolve()
  #refusedKeys = 0
  #refusedKeysTimer: Alarm | undefined

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
      at: isoNow(this.#clock),
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
    this.#timer ??= this.#clock.after(writeDelayMs, () => void this.flush())
  }

  /**
   * Returns how many events of the sandbox were dropped since its last one, or "this too" if this one exceeds the rate
   * and is counted with them.
   */
  #takeDropped({ type, sandbox, meta }: NewEvent): number | "this too" | undefined {
    const isUncalled = type.startsWith("process.") || meta?.["by"] === "guest" || meta?.["by"] === "daemon"
    if (sandbox === undefined || !isUncalled) return undefined
    const before = this.#dropped.get(sandbox.id)
    if (this.#uncalled.take(sandbox.id, this.#clock.nowMs()).kind === "allowed") {
      this.#dropped.delete(sandbox.id)
      return before
    }
    if (before !== undefined || this.#dropped.size < sandboxesMax)
      this.#dropped.set(sandbox.id, (before ?? 0) + 1)
    return "this too"
  }

  /** Records an unknown key: the first at once, the rest together. */
  refusedKey(): void {
    this.#refusedKeys++
    if (this.#refusedKeysTimer) return
    const tell = () => {
      this.record({ type: "auth.failed", meta: { count: this.#refusedKeys } })
      this.#refusedKeys = 0
    }
    tell()
    this.#refusedKeysTimer = this.#clock.after(refusedKeysMs, () => {
      this.#refusedKeysTimer = undefined
      if (this.#refusedKeys > 0) tell()
    })
  }

  /** Writes queued events. Never throws: events that cannot be written are lost, and the log says so. */
  flush(): Promise<void> {
    this.#timer?.cancel()
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

  /** Returns undefined if there are already as many followers as allowed. */
  subscribe(filter: EventFilter): Subscription | undefined {
    if (this.#subscriptions.size >= limits.eventSubscribersMax) return undefined
    const subscription = new Subscription(filter, this.#clock, () => this.#subscriptions.delete(subscription))
    this.#subscriptions.add(subscription)
    return subscription
  }

  /** Prunes old events periodically until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.#prune()
      await sleep(this.#clock, pruneEveryMs, signal)
    }
  }

  async #prune(): Promise<void> {
    this.#sincePruned = 0
    try {
      const removed = await this.#store.events.prune(this.#clock.unixMs())
      if (removed > 0) this.#log.info({ removed }, "removed old events")
    } catch (error) {
      this.#log.error({ error }, "old events could not be removed")
    }
  }

  /** Ends every follower's stream. */
  close(): void {
    this.#refusedKeysTimer?.cancel()
    for (const subscription of this.#subscriptions) subscription.close()
  }
}

/**
 * Unread events of one follower. A follower that falls too far behind is disconnected, so that it costs others nothing.
 */
export class Subscription {
  readonly #filter: EventFilter
  readonly #clock: Clock
  readonly #onClose: () => void
  #waiting: EventRecord[] = []
  #isClosed = false
  #wake: () => void = () => undefined
  isCut = false

  constructor(filter: EventFilter, clock: Clock, onClose: () => void) {
    this.#filter = filter
    this.#clock = clock
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

  /** Returns the next event, undefined when the stream is over, or `"quiet"` if nothing happened for that long. */
  async next(options: { quietMs: number }): Promise<EventRecord | "quiet" | undefined> {
    if (this.#waiting.length === 0 && !this.#isClosed) {
      const { promise, resolve } = Promise.withResolvers<void>()
      const alarm = this.#clock.after(options.quietMs, resolve)
      this.#wake = resolve
      await promise
      alarm.cancel()
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
    (filter.userId === null || record.userId === filter.userId) &&
    (filter.type === undefined || record.type.startsWith(filter.type)) &&
    (filter.types === undefined || filter.types.includes(record.type)) &&
    (filter.sandboxIds?.includes(record.sandboxId ?? "") ?? true) &&
    (filter.sandboxId === undefined || record.sandboxId === filter.sandboxId) &&
    (filter.sandbox === undefined ||
      record.sandboxId === filter.sandbox ||
      record.sandboxName === filter.sandbox) &&
    (filter.since === undefined || record.at >= filter.since)
  )
}
