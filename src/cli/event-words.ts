/** Filters and text for events. */

import type { Event } from "@bhatti/contract/event"
import { readDuration } from "./duration.ts"
import { printable } from "./words.ts"

/** A duration before now, or a point in time. */
export function startOfEvents(text: string): string {
  const isTime = /^\d{4}-\d\d-\d\d/.test(text) && !Number.isNaN(Date.parse(text))
  const ms = isTime ? Date.parse(text) : Date.now() - readDuration("--since", text) * 1000
  return new Date(ms).toISOString()
}

export function eventLine({
  ts,
  type,
  sandbox_name,
  meta,
}: Pick<Event, "ts" | "type" | "sandbox_name" | "meta">): string {
  const more = Object.entries(meta).flatMap(([key, value]) =>
    value === null ? [] : [`${key}=${quoted(String(value))}`],
  )
  return [ts, type, ...(sandbox_name === null ? [] : [sandbox_name]), ...more].join("  ")
}

function quoted(text: string): string {
  return /^[\w./:-]+$/.test(text) ? text : `"${printable(text)}"`
}
