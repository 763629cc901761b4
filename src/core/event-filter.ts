/** Checks what an account asks its events for: a misspelt name would find nothing, silently. */

import type { EventFilter } from "../store/events.ts"
import type { Account } from "../store/users.ts"
import type { Core } from "./core.ts"
import { findSandbox } from "./find.ts"

/** Throws if the account neither has such a sandbox nor has an event of it. */
export async function checkSandboxOfEvents(
  core: Pick<Core, "events" | "store">,
  account: Account,
  sandbox: EventFilter["sandbox"],
): Promise<void> {
  if (sandbox === undefined) return
  if ((await core.store.sandboxes.find(account, sandbox)) !== undefined) return
  if (
    (
      await core.events.list(
        { userId: account.id, sandboxIds: account.scope?.sandboxIds ?? undefined, sandbox },
        1,
      )
    ).length > 0
  )
    return
  await findSandbox(core, account, sandbox)
}
