/** `bhatti events`. */

import { AppError } from "@bhatti/contract/errors"
import { limits } from "@bhatti/contract/limits"
import type { Client } from "@bhatti/sdk/client"
import { eventPrefixes } from "../../lib/event-filter.ts"
import { command } from "../command.ts"
import { eventLine, startOfEvents } from "../event-words.ts"
import type { Output } from "../output.ts"

/** Events that only bhatti admin events shows. */
const operatorsPrefixes = ["auth.", "template.", "unknown.", "daemon."]

export const events = command({
  description: `Lists what happened to your sandboxes, oldest first: who caused it, why, and how long it took. Kept for ${limits.eventDaysKept} days.

--type takes a prefix: ${eventPrefixes.filter((prefix) => !operatorsPrefixes.includes(prefix)).join(", ")}. A prefix of no type is an error, and so is a sandbox that never was.`,
  options: {
    sandbox: {
      type: "text",
      short: "s",
      value: "SANDBOX",
      summary: "Only events of this sandbox, even after it is destroyed",
    },
    type: { type: "text", short: "t", value: "TYPE", summary: "Only event types with this prefix" },
    since: {
      type: "text",
      value: "TIME",
      summary: "Only events since 30m, 1h or 7d ago, or since a time such as 2030-01-31T12:00:00Z",
    },
    limit: {
      type: "integer",
      value: "N",
      min: 0,
      max: limits.eventsPerReplyMax,
      summary: "Show at most N events, the newest",
      fallback: limits.eventsPerReplyDefault,
    },
    follow: { type: "flag", short: "f", summary: "Keep running and show new events as they happen" },
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
      await tellUnknown(client, options.sandbox, out)
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

/** A sandbox may be made later, but its name may also be misspelt. */
async function tellUnknown(client: Client, sandbox: string | undefined, out: Output): Promise<void> {
  if (sandbox === undefined) return
  try {
    await client.listEvents({ query: { sandbox, limit: 1 } })
  } catch (error) {
    if (!(error instanceof AppError && error.code === "not_found")) throw error
    const hint = error.hint === undefined ? "" : ` (${error.hint})`
    await out.talk(`bhatti: ${error.message} so far${hint}; events come when there is`)
  }
}
