/** Resolves a name to its guest, running and reachable. */

import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Account } from "../store/users.ts"
import type { ForRequest } from "./core.ts"
import { findSandbox, noSandbox } from "./find.ts"
import type { Guest } from "./host.ts"
import { wakeSandbox } from "./power.ts"
import { settle } from "./settle.ts"

/** Deadline for requests that a guest can answer at once. */
export const answerDeadlineMs = 15_000

/** Wakes the guest for a request, and confirms afterwards that the request's key is still valid. */
export async function awakeGuest(
  core: ForRequest,
  account: Account,
  nameOrId: string,
  what?: string,
): Promise<Guest> {
  const guest = await awake(core, await findSandbox(core, account, nameOrId), what)
  // A wake takes seconds; the key may have been revoked meanwhile.
  await account.confirm?.()
  return guest
}

/**
 * Wakes the sandbox if needed; concurrent callers share one wake. `what` names the caller in `why` and in events. A
 * sandbox that keeps failing to start backs off, unless its owner insists.
 */
export async function awake(
  core: ForRequest,
  record: SandboxRecord,
  what = "a request",
  { force = false }: { force?: boolean } = {},
): Promise<Guest> {
  core.touches.set(record.id, { what, atMs: core.clock.nowMs() })
  await core.space.check(record)
  const open = core.guests.get(record.id)
  if (open && record.state.kind === "hot") return open
  return core.turns.take(record.id, () => awakeInTurn(core, record, what, { force }))
}

/** The same for a caller that has the sandbox's turn. */
export async function awakeInTurn(
  core: ForRequest,
  { id, name }: SandboxRecord,
  what: string,
  { force = false }: { force?: boolean } = {},
): Promise<Guest> {
  const settled = await settle(core, id)
  if (!settled) throw noSandbox(name)
  const now = await core.space.checkInTurn(settled)
  if (now.state.kind === "cold" && !force) core.failedStarts.checkBackOff(now)
  return wakeSandbox(core, now, what)
}
