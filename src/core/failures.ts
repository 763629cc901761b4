/**
 * Records an event with the reason when a request to a sandbox fails through no fault of the client, so that the reason
 * is kept even if nobody saw the answer. A bad name, a limit or a conflict is the client's fault and leaves no event.
 */

import { AppError } from "@bhatti/contract/errors"
import type { EventType } from "@bhatti/contract/event-types"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Core } from "./core.ts"

type FailedType = Extract<EventType, `${string}_failed`>

export async function withFailure<T>(
  core: Pick<Core, "events">,
  about: {
    type: FailedType
    /** A user without a sandbox: the failure concerned something else of that user. */
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
  core: Pick<Core, "events">,
  { type, sandbox, meta }: Parameters<typeof withFailure>[1],
  error: unknown,
): void {
  if (error instanceof AppError && error.code !== "unavailable" && error.code !== "internal") return
  core.events.record({
    type,
    userId: sandbox.userId,
    sandbox: "id" in sandbox ? sandbox : undefined,
    meta: { by: "user", ...meta, ...failureMeta(error) },
  })
}

export function failureMeta(error: unknown): { code: string; reason: string; hint?: string } {
  // The text of a bug belongs in the log.
  if (!(error instanceof AppError))
    return { code: "internal", reason: "an internal error; the daemon's log has the details" }
  return {
    code: error.code,
    reason: error.message,
    ...(error.hint !== undefined && { hint: error.hint }),
  }
}
