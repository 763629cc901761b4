/** Handlers of events. */

import type { Handlers } from "../context.ts"
import { followEvents, listEvents } from "../events-reply.ts"

export const events = {
  async listEvents({ core, account, revoked }, { query }) {
    if (query.follow === "false") return listEvents(core, account, query)
    return followEvents(core, account, query, revoked)
  },
} satisfies Partial<Handlers>
