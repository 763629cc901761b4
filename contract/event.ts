/** Events: changes to your sandboxes, with their cause, reason and duration. */

import { z } from "zod"
import { limits } from "./limits.ts"

export const Event = z
  .object({
    id: z.string().describe("Ids sort by time"),
    ts: z.iso.datetime(),
    type: z.string(),
    user_id: z.string().nullable(),
    sandbox_id: z.string().nullable(),
    sandbox_name: z.string().nullable().describe("Its name at that time"),
    meta: z
      .record(z.string(), z.union([z.string(), z.number(), z.boolean(), z.null()]))
      .describe(
        "Details, such as `ms` (duration), `by` (user, daemon, guest or kernel), `reason` in words, and of an end its `cause` for programs",
      ),
  })
  .meta({ id: "Event" })
export type Event = z.infer<typeof Event>

/** A line of the followed stream; empty lines keep the connection alive. */
export const EventLine = z.union([
  Event,
  z.object({ type: z.literal("error"), data: z.string(), code: z.string(), hint: z.string().nullable() }),
])

export type EventLine = z.infer<typeof EventLine>

export const EventsQuery = z.strictObject({
  type: z
    .string()
    .regex(/^[a-z_.]{1,40}$/, "a type has lower-case letters, underscores and dots")
    .optional()
    .describe("Only event types with this prefix, such as `thermal.`; a prefix of none is an error"),
  sandbox: z
    .string()
    .min(1)
    .max(128)
    .optional()
    .describe(
      "Only events of this sandbox, by name or id, also after it is destroyed; one that never was is an error, unless the events are followed",
    ),
  since: z.iso.datetime({ offset: true }).optional().describe("Only events from this time on"),
  limit: z.coerce
    .number()
    .int()
    .min(0)
    .max(limits.eventsPerReplyMax)
    .default(limits.eventsPerReplyDefault)
    .describe("Show at most this many, the newest"),
  follow: z
    .enum(["true", "false"])
    .default("false")
    .describe("Keep the connection open and stream new events as JSON lines"),
})
export type EventsQuery = z.infer<typeof EventsQuery>
