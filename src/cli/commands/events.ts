/** `bhatti events`. */

import { limits } from "../../contract/limits.ts"
import { command } from "../command.ts"
import { eventLine, startOfEvents } from "../event-words.ts"

export const events = command({
  description: `What happened to your sandboxes, oldest first: who caused it, why, and how long it took. Kept for ${limits.eventDaysKept} days.

--type takes how a type begins: sandbox., thermal., snapshot., publish., shell., secret.`,
  options: {
    sandbox: {
      type: "text",
      short: "s",
      value: "SANDBOX",
      summary: "Only of this one, also when it is gone",
    },
    type: { type: "text", short: "t", value: "TYPE", summary: "Only types that begin so" },
    since: {
      type: "text",
      value: "TIME",
      summary: "Only of the last 30m, 1h, 7d, or from a time such as 2030-01-31T12:00:00Z on",
    },
    limit: {
      type: "integer",
      value: "N",
      min: 0,
      max: limits.eventsPerReplyMax,
      summary: "The newest so many",
      fallback: limits.eventsPerReplyDefault,
    },
    follow: { type: "flag", short: "f", summary: "Stay and show further ones as they happen" },
  },
  examples: [
    "bhatti events --sandbox dev --since 1h",
    "bhatti events --type thermal. --json",
    "bhatti events --follow --limit 0",
  ],
  async run({ client, options, isJson, out }) {
    const query = {
      sandbox: options.sandbox,
      type: options.type,
      since: options.since === undefined ? undefined : startOfEvents(options.since),
      limit: options.limit,
    }
    if (options.follow) {
      for await (const event of client.followEvents(query)) {
        await out.result(isJson ? JSON.stringify(event) : eventLine(event))
      }
      return
    }
    const found = await client.listEvents({ query })
    if (isJson) return await out.json(found)
    if (found.length === 0) return await out.talk("no events")
    for (const event of found) await out.result(eventLine(event))
  },
})
