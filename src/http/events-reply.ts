/** Events as a stream of JSON lines: stored events first, then new ones as they happen. */

import { AppError } from "@bhatti/contract/errors"
import type { Event, EventLine, EventsQuery } from "@bhatti/contract/event"
import type { Core } from "../core/core.ts"
import { checkSandboxOfEvents } from "../core/event-filter.ts"
import type { Subscription } from "../core/events.ts"
import { toAppError } from "../gate/errors.ts"
import { onRevoked } from "../gate/revocation.ts"
import { checkEventType } from "../lib/event-filter.ts"
import type { EventFilter, EventRecord } from "../store/events.ts"
import type { Account } from "../store/users.ts"
import { jsonLines, type StreamedAnswer } from "./streamed-answer.ts"
import { viewEvent } from "./views/event.ts"

/** Well below the time after which the front treats a silent answer as dead. */
const quietMs = 30_000

export async function listEvents(core: Core, account: Account, query: EventsQuery): Promise<Event[]> {
  checkEventType(query.type)
  await checkSandboxOfEvents(core, account, query.sandbox)
  return (await core.events.list(filterOf(account, query), query.limit)).map(viewEvent)
}

export async function followEvents(
  core: Core,
  account: Account,
  query: EventsQuery,
  revoked: AbortSignal,
): Promise<StreamedAnswer> {
  // A sandbox may be made later.
  checkEventType(query.type)
  const filter = filterOf(account, query)
  // Subscribes before reading the stored events, so that none is missed in between.
  const subscription = core.events.subscribe(filter)
  if (!subscription)
    throw new AppError("unavailable", "too many clients follow events", { retryAfterSec: 10 })
  let stored: EventRecord[]
  try {
    stored = await core.events.list(filter, query.limit)
  } catch (error) {
    subscription.close()
    throw error
  }
  const listening = onRevoked(revoked, () => subscription.close())
  const lines = linesOf(stored, subscription, revoked)
  return jsonLines(lines, () => {
    listening[Symbol.dispose]()
    subscription.close()
  })
}

/** Yields undefined if nothing happened for a while. */
async function* linesOf(
  stored: EventRecord[],
  subscription: Subscription,
  revoked: AbortSignal,
): AsyncGenerator<EventLine | undefined> {
  yield* stored.map(viewEvent)
  // The answer must begin even without events.
  if (stored.length === 0) yield undefined
  const last = stored.at(-1)?.id ?? ""
  for (;;) {
    const next = await subscription.next({ quietMs })
    if (next === undefined) break
    if (next === "quiet") yield undefined
    else if (next.id > last) yield viewEvent(next)
  }
  if (revoked.aborted) {
    const { code, message, hint } = toAppError(revoked.reason)
    yield { type: "error", data: message, code, hint: hint ?? null }
  } else if (subscription.isCut) {
    yield {
      type: "error",
      data: "events arrived faster than the client read them",
      code: "unavailable",
      hint: "follow again with the time of the last event as since",
    }
  }
}

function filterOf(account: Account, { type, sandbox, since }: EventsQuery): EventFilter {
  return {
    userId: account.id,
    sandboxIds: account.scope?.sandboxIds ?? undefined,
    type,
    sandbox,
    since: since === undefined ? undefined : new Date(since).toISOString(),
  }
}
