/** The end of a sandbox's life as the store knows it, in times of the host's clock (`core/host-clock.ts`). */

import { z } from "zod"

export const Lifetime = z.discriminatedUnion("kind", [
  z.strictObject({
    kind: z.literal("set"),
    /** When its owner is to be warned, when it ends, and when the warning was given. */
    warnAtMs: z.number(),
    endsAtMs: z.number(),
    warnedAtMs: z.number().nullable(),
  }),
  /** It begins anew when the sandbox is next used, if the end was a pause. */
  z.strictObject({ kind: z.literal("ended") }),
  /** Its times were another clock's, as after a recovery: it begins anew. */
  z.strictObject({ kind: z.literal("unset") }),
])
export type Lifetime = z.infer<typeof Lifetime>

export const Stopped = z.strictObject({ sinceMs: z.number(), warnedAtMs: z.number().nullable() })
export type Stopped = z.infer<typeof Stopped>

export function readLifetime(text: string | null | undefined): Lifetime | null {
  return text === null || text === undefined ? null : Lifetime.parse(JSON.parse(text))
}

export function readStopped(text: string | null | undefined): Stopped | null {
  return text === null || text === undefined ? null : Stopped.parse(JSON.parse(text))
}

/** Its columns. */
export function lifetimeColumns(lifetime: Lifetime | null): {
  lifetime: string | null
  due_ms: number | null
} {
  return { lifetime: lifetime && JSON.stringify(Lifetime.parse(lifetime)), due_ms: dueOf(lifetime) }
}

function dueOf(lifetime: Lifetime | null): number | null {
  switch (lifetime?.kind) {
    case "set":
      return lifetime.warnedAtMs === null ? lifetime.warnAtMs : lifetime.endsAtMs
    case "unset":
      return 0
    default:
      return null
  }
}

/** For another host, whose clock tells other times: a lifetime begins anew there. */
export function anotherClocksColumns(lifetime: string | null | undefined) {
  const known = readLifetime(lifetime)
  return { ...lifetimeColumns(known?.kind === "set" ? { kind: "unset" } : known), stopped: null }
}
