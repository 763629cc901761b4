/** The end of a sandbox's lifetime. */

import { z } from "zod"

export const TtlEnd = z
  .enum(["pause", "destroy", "keep"])
  .describe(
    "pause: its memory is saved to disk, and the next request continues it with a new lifetime; destroy: it is destroyed with its disk; keep: only an event says that the time is over",
  )
export type TtlEnd = z.infer<typeof TtlEnd>
