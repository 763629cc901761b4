/** From a name to the guest behind it, ready to be spoken to. */

import { AppError } from "../contract/errors.ts"
import type { Account } from "../store/users.ts"
import { repair } from "./attach.ts"
import type { Core } from "./core.ts"
import { findSandbox, noSandbox } from "./find.ts"
import type { Guest } from "./host.ts"

/** How long a guest may take for what it can answer at once. */
export const answerDeadlineMs = 15_000

export async function awakeGuest(core: Core, account: Account, nameOrId: string): Promise<Guest> {
  const record = await findSandbox(core, account, nameOrId)
  const open = core.guests.get(record.id)
  if (open && record.state.kind === "hot") return open
  return core.turns.take(record.id, async () => {
    const now = await core.store.sandboxes.get(record.id)
    if (now?.state.kind === "hot" && !core.guests.has(record.id)) await repair(core, now, "no channel")
    const guest = core.guests.get(record.id)
    if (guest) return guest
    const after = await core.store.sandboxes.get(record.id)
    if (after?.state.kind === "broken") {
      throw new AppError("conflict", `sandbox "${record.name}" is not running: ${after.state.reason}`, {
        hint: `bhatti destroy ${record.name}, then create it again`,
      })
    }
    throw noSandbox(nameOrId)
  })
}
