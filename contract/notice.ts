/** Notices to the clients of a sandbox. */

import { z } from "zod"

/** A message to clients that are connected to a sandbox which is about to be paused or destroyed. */
export const NoticeMessage = z.object({
  type: z.literal("notice"),
  text: z.string().describe("In words for a person"),
  action: z.enum(["pause", "destroy"]),
  ends_at: z.iso.datetime().describe("When it happens, unless the sandbox is given more time"),
})
export type NoticeMessage = z.infer<typeof NoticeMessage>
