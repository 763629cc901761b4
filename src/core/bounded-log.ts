/**
 * The daemon's log, with limits on the lines that a guest, a user or a stranger can cause. Each subject has its own
 * rate. Lines beyond it are dropped and counted, and the subject's next line reports the count. Long texts are cut in
 * the middle.
 */

import { type Rate, RateLimiter } from "../lib/rate-limit.ts"
import type { Clock } from "./clock.ts"

export interface Log {
  info(fields: Record<string, unknown>, message: string): void
  warn(fields: Record<string, unknown>, message: string): void
  error(fields: Record<string, unknown>, message: string): void
}

type Level = keyof Log

/** Limit per text in a line. */
export const textCharactersMax = 8192
const depthMax = 4
const entriesMax = 50
const subjectsMax = 10_000

/** Lines about one sandbox, one alias, or one part of the daemon. */
export const subjectRate: Rate = { burst: 100, perMinute: 60 }
/** Lines about requests of one user, or of all requests without a key together. */
export const requesterRate: Rate = { burst: 2000, perMinute: 1200 }

export class BoundedLog implements Log {
  readonly #log: Log
  readonly #clock: Clock
  readonly #subjects = new RateLimiter(subjectRate, { bucketsMax: subjectsMax })
  readonly #requesters = new RateLimiter(requesterRate, { bucketsMax: subjectsMax })
  readonly #dropped = new Map<string, number>()
  /** Lines dropped since the daemon started. */
  droppedCount = 0

  constructor(log: Log, clock: Clock) {
    this.#log = log
    this.#clock = clock
  }

  info(fields: Record<string, unknown>, message: string): void {
    this.#write("info", fields, message)
  }

  warn(fields: Record<string, unknown>, message: string): void {
    this.#write("warn", fields, message)
  }

  error(fields: Record<string, unknown>, message: string): void {
    this.#write("error", fields, message)
  }

  #write(level: Level, fields: Record<string, unknown>, message: string): void {
    const subject = subjectOf(fields, message)
    // Each level has its own rate, so that a flood of routine lines hides no error.
    const key = `${level} ${subject.name}`
    const limiter = subject.isRequester ? this.#requesters : this.#subjects
    if (limiter.take(key, this.#clock.nowMs()).kind === "refused") return this.#drop(key)
    const dropped = this.#dropped.get(key)
    this.#dropped.delete(key)
    const bounded = withShortTexts(fields) as Record<string, unknown>
    this.#log[level]({ ...bounded, ...(dropped !== undefined && { dropped }) }, shortened(message))
  }

  #drop(key: string): void {
    this.droppedCount++
    const known = this.#dropped.has(key) || this.#dropped.size < subjectsMax
    if (known) this.#dropped.set(key, (this.#dropped.get(key) ?? 0) + 1)
  }
}

function subjectOf(
  { user, sandbox, alias, request_id }: Record<string, unknown>,
  message: string,
): { name: string; isRequester: boolean } {
  if (request_id !== undefined) return { name: `user ${String(user ?? "")}`, isRequester: true }
  if (sandbox !== undefined) return { name: `sandbox ${String(sandbox)}`, isRequester: false }
  if (alias !== undefined) return { name: `alias ${String(alias)}`, isRequester: false }
  return { name: message, isRequester: false }
}

/** Keeps errors as they are; the caller formats them. */
export function withShortTexts(value: unknown, depth = 0): unknown {
  if (typeof value === "string") return shortened(value)
  if (typeof value !== "object" || value === null || value instanceof Error) return value
  if (depth === depthMax) return "…"
  if (Array.isArray(value)) return value.slice(0, entriesMax).map((one) => withShortTexts(one, depth + 1))
  const entries = Object.entries(value).slice(0, entriesMax)
  return Object.fromEntries(entries.map(([name, one]) => [name, withShortTexts(one, depth + 1)]))
}

/** Keeps the beginning and the end, which say most. */
function shortened(text: string): string {
  if (text.length <= textCharactersMax) return text
  const half = textCharactersMax / 2
  return `${text.slice(0, half)} … ${text.length - textCharactersMax} characters … ${text.slice(-half)}`
}
