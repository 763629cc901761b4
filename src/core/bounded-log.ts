/**
 * The daemon's log with bounds on what a guest, a user or a stranger can have it write. Each of them has a rate of lines of its
 * own; of lines beyond it only the number is kept, and told with the next line of the same subject. Long texts lose their middle.
 */

import { type Rate, RateLimiter } from "../rules/rate-limit.ts"
import type { Clock } from "./clock.ts"

export interface Log {
  info(fields: Record<string, unknown>, message: string): void
  warn(fields: Record<string, unknown>, message: string): void
  error(fields: Record<string, unknown>, message: string): void
}

type Level = keyof Log

/** Kept of each text in a line. */
export const textCharactersMax = 8192
const depthMax = 4
const entriesMax = 50
const subjectsMax = 10_000

/** Lines about one sandbox, one alias, or one thing of the daemon's own. */
export const subjectRate: Rate = { burst: 100, perMinute: 60 }
/** Lines about requests of one user, and of everybody without a key together. */
export const requesterRate: Rate = { burst: 2000, perMinute: 1200 }

export class BoundedLog implements Log {
  readonly #log: Log
  readonly #clock: Clock
  readonly #subjects = new RateLimiter(subjectRate, { bucketsMax: subjectsMax })
  readonly #requesters = new RateLimiter(requesterRate, { bucketsMax: subjectsMax })
  readonly #dropped = new Map<string, number>()
  /** Lines that were not written, since the daemon started. */
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
    // A flood of what is usual hides no error.
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

/** Errors stay as they are, since whoever writes them makes texts of them. */
export function withShortTexts(value: unknown, depth = 0): unknown {
  if (typeof value === "string") return shortened(value)
  if (typeof value !== "object" || value === null || value instanceof Error) return value
  if (depth === depthMax) return "…"
  if (Array.isArray(value)) return value.slice(0, entriesMax).map((one) => withShortTexts(one, depth + 1))
  const entries = Object.entries(value).slice(0, entriesMax)
  return Object.fromEntries(entries.map(([name, one]) => [name, withShortTexts(one, depth + 1)]))
}

/** Beginning and end say most. */
function shortened(text: string): string {
  if (text.length <= textCharactersMax) return text
  const half = textCharactersMax / 2
  return `${text.slice(0, half)} … ${text.length - textCharactersMax} characters … ${text.slice(-half)}`
}
