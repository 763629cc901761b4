/** `bhatti admin events`. */

import { limits } from "@bhatti/contract/limits"
import { checkEventType } from "../../lib/event-filter.ts"
import { hostCommand } from "../command.ts"
import { eventLine, startOfEvents } from "../event-words.ts"
import { dataDirOption, withStore } from "../user-store.ts"

export const adminEvents = hostCommand({
  description: `Reads the database in the data directory. In addition to the events that \`bhatti events\` shows to each user it has: refused keys,
users created and changed, templates, starts and stops of the daemon.`,
  options: {
    sandbox: {
      type: "text",
      short: "s",
      value: "SANDBOX",
      summary: "Only events of this sandbox, even after it is destroyed",
    },
    type: { type: "text", short: "t", value: "TYPE", summary: "Only event types with this prefix" },
    since: { type: "text", value: "TIME", summary: "Only events since 30m, 1h or 7d ago, or since a time" },
    limit: {
      type: "integer",
      value: "N",
      min: 0,
      max: limits.eventsKeptMax,
      summary: "Show at most N events, the newest",
      fallback: limits.eventsPerReplyDefault,
    },
    ...dataDirOption,
  },
  examples: ["sudo bhatti admin events --type auth. --since 1d"],
  async run({ options, operator, isJson, out }) {
    checkEventType(options.type)
    const filter = {
      userId: null,
      sandbox: options.sandbox,
      type: options.type,
      since: options.since === undefined ? undefined : startOfEvents(options.since),
    }
    const limit = options.limit ?? limits.eventsPerReplyDefault
    const stored = await withStore(operator, options, ({ events }) => events.list(filter, limit))
    const found = stored.map(({ id, at, type, userId, sandboxId, sandboxName, meta }) => ({
      id,
      ts: at,
      type,
      user_id: userId,
      sandbox_id: sandboxId,
      sandbox_name: sandboxName,
      meta,
    }))
    if (isJson) return await out.json(found)
    for (const event of found)
      await out.result(
        event.user_id === null ? eventLine(event) : `${eventLine(event)}  user_id=${event.user_id}`,
      )
  },
})
