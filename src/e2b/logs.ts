/** A sandbox's events as its log. */

import type { Core } from "../core/core.ts"
import type { EventRecord } from "../store/events.ts"
import type { Account } from "../store/users.ts"

export async function logsOf(
  core: Pick<Core, "events">,
  account: Pick<Account, "id">,
  sandboxId: string,
  limit: number,
) {
  const events = await core.events.list({ userId: account.id, sandboxId }, limit)
  const lines = events.map((event) => ({ timestamp: event.at, line: lineOf(event) }))
  const entries = events.map((event) => ({
    timestamp: event.at,
    level: event.type.endsWith("_failed") ? "error" : "info",
    message: lineOf(event),
    fields: Object.fromEntries(Object.entries(event.meta).map(([name, value]) => [name, String(value)])),
  }))
  return { logs: lines, logEntries: entries }
}

function lineOf({ type, meta }: EventRecord): string {
  return [type, ...Object.entries(meta).map(([name, value]) => `${name}=${value}`)].join(" ")
}
