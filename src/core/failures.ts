/**
 * What was asked of a sandbox and failed through no fault of who asked leaves an event with the reason, so that nobody has to have
 * seen the answer. A bad name, a limit or a conflict is the asker's own affair and leaves none.
 */

import { AppError } from "../contract/errors.ts"
import type { EventType } from "../contract/event.ts"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Core } from "./core.ts"

type FailedType = Extract<EventType, `${string}_failed`>

export async function withFailure<T>(
  core: Core,
  about: {
    type: FailedType
    /** None: it was about something else of that user. */
    sandbox: Pick<SandboxRecord, "id" | "name" | "userId"> | { userId: SandboxRecord["userId"] }
    meta?: { snapshot: string } | { port: number }
  },
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work()
  } catch (error) {
    recordFailure(core, about, error)
    throw error
  }
}

export function recordFailure(
  core: Core,
  { type, sandbox, meta }: Parameters<typeof withFailure>[1],
  error: unknown,
): void {
  const isApp = error instanceof AppError
  if (isApp && error.code !== "unavailable" && error.code !== "internal") return
  core.events.record({
    type,
    userId: sandbox.userId,
    sandbox: "id" in sandbox ? sandbox : undefined,
    meta: {
      by: "user",
      ...meta,
      code: isApp ? error.code : "internal",
      // The words of a bug are for the log.
      reason: isApp ? error.message : "an internal error; the daemon's log says which",
      ...(isApp && error.hint !== undefined && { hint: error.hint }),
    },
  })
}
