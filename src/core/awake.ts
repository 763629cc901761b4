/** From a name to the guest behind it, running and ready to be spoken to. */

import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Account } from "../store/users.ts"
import type { Core } from "./core.ts"
import { findSandbox, noSandbox } from "./find.ts"
import type { Guest } from "./host.ts"
import { wakeSandbox } from "./power.ts"
import { settle } from "./settle.ts"

/** How long a guest may take for what it can answer at once. */
export const answerDeadlineMs = 15_000

/** For a request, whose key is still valid when this resolves. */
export async function awakeGuest(
  core: Core,
  account: Account,
  nameOrId: string,
  what?: string,
): Promise<Guest> {
  const guest = await awake(core, await findSandbox(core, account, nameOrId), what)
  // A wake takes seconds.
  await account.confirm?.()
  return guest
}

/**
 * Wakes it if need be; callers that come together wait for one wake. `what` is who asks, for `why` and the events. One that fails
 * to start again and again rests in between, unless its owner insists.
 */
export async function awake(
  core: Core,
  record: SandboxRecord,
  what = "a request",
  { force = false }: { force?: boolean } = {},
): Promise<Guest> {
  core.touches.set(record.id, { what, atMs: core.clock.nowMs() })
  await core.space.check(record)
  const open = core.guests.get(record.id)
  if (open && record.state.kind === "hot") return open
  return core.turns.take(record.id, async () => {
    const settled = await settle(core, record.id)
    if (!settled) throw noSandbox(record.name)
    const now = await core.space.checkInTurn(settled)
    if (now.state.kind === "cold" && !force) core.failedStarts.checkRested(now)
    return wakeSandbox(core, now, what)
  })
}
