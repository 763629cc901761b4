/** An event on the wire. */

import type { Event } from "@bhatti/contract/event"
import type { EventRecord } from "../../store/events.ts"

export function viewEvent(record: EventRecord): Event {
  return {
    id: record.id,
    ts: record.at,
    type: record.type,
    user_id: record.userId,
    sandbox_id: record.sandboxId,
    sandbox_name: record.sandboxName,
    meta: record.meta,
  }
}
