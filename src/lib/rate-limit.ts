/**
 * Token buckets: how many requests a key may make at once and per minute. Facts and the clock's value in, decision out.
 * The table of buckets is bounded. A full bucket carries no information and is evicted; if none is full, keys outside
 * the table share one bucket, so that using many keys never raises the rate.
 */

export type Rate = { burst: number; perMinute: number }
export type Bucket = { tokens: number; atMs: number }
export type Decision = { kind: "allowed" } | { kind: "refused"; retryAfterMs: number }

/** A key without a bucket starts with a full one. */
export function takeToken(
  bucket: Bucket | undefined,
  rate: Rate,
  nowMs: number,
): { bucket: Bucket; decision: Decision } {
  const tokens = bucket === undefined ? rate.burst : refilled(bucket, rate, nowMs)
  // A clock that went back must not count the same minute twice.
  const atMs = Math.max(bucket?.atMs ?? nowMs, nowMs)
  if (tokens >= 1) return { bucket: { tokens: tokens - 1, atMs }, decision: { kind: "allowed" } }
  const retryAfterMs = ((1 - tokens) * minuteMs) / rate.perMinute
  return { bucket: { tokens, atMs }, decision: { kind: "refused", retryAfterMs } }
}

const minuteMs = 60_000
/** The sweep visits all buckets, so it must not run for every request of a flood. */
const sweepEveryMs = 1000

function refilled(bucket: Bucket, rate: Rate, nowMs: number): number {
  const elapsedMs = Math.max(0, nowMs - bucket.atMs)
  return Math.min(rate.burst, bucket.tokens + (elapsedMs * rate.perMinute) / minuteMs)
}

export class RateLimiter {
  readonly #rate: Rate
  readonly #bucketsMax: number
  readonly #buckets = new Map<string, Bucket>()
  #shared: Bucket | undefined
  #sweptAtMs = Number.NEGATIVE_INFINITY

  constructor(rate: Rate, options: { bucketsMax: number }) {
    this.#rate = rate
    this.#bucketsMax = options.bucketsMax
  }

  get size(): number {
    return this.#buckets.size
  }

  take(key: string, nowMs: number): Decision {
    const known = this.#buckets.get(key)
    if (known === undefined && !this.#hasRoom(nowMs)) {
      const { bucket, decision } = takeToken(this.#shared, this.#rate, nowMs)
      this.#shared = bucket
      return decision
    }
    const { bucket, decision } = takeToken(known, this.#rate, nowMs)
    this.#buckets.set(key, bucket)
    return decision
  }

  #hasRoom(nowMs: number): boolean {
    if (this.#buckets.size < this.#bucketsMax) return true
    if (nowMs - this.#sweptAtMs < sweepEveryMs) return false
    this.#sweptAtMs = nowMs
    for (const [key, bucket] of this.#buckets) {
      if (refilled(bucket, this.#rate, nowMs) >= this.#rate.burst) this.#buckets.delete(key)
    }
    return this.#buckets.size < this.#bucketsMax
  }
}
