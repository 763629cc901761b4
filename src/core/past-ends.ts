/** Ends that are over: of a sandbox's processes and machines, and of the sandbox itself. Events keep them. */

import type { EventType } from "@bhatti/contract/event-types"
import type { EventRecord } from "../store/events.ts"
import type { Account } from "../store/users.ts"
import type { Core } from "./core.ts"

const endTypes: readonly EventType[] = [
  "exec.failed",
  "process.ended",
  "process.out_of_memory",
  "sandbox.service_stopped",
  "sandbox.ended",
  "sandbox.destroyed",
]
const shownMax = 5

/** Returns the sandbox's last ends, oldest first. */
export async function pastEnds(
  core: Pick<Core, "events">,
  account: Pick<Account, "id">,
  sandboxId: string,
): Promise<EventRecord[]> {
  return core.events.list({ userId: account.id, sandboxId, types: endTypes }, shownMax)
}

/** Finds the end of a sandbox that is gone, by the id or the last name of it; of several the youngest. */
export async function findDestroyed(
  core: Pick<Core, "events">,
  account: Pick<Account, "id" | "scope">,
  nameOrId: string,
): Promise<(EventRecord & { sandboxId: string }) | undefined> {
  const filter = {
    ...{ userId: account.id, sandboxIds: account.scope?.sandboxIds ?? undefined },
    ...{ type: "sandbox.destroyed", sandbox: nameOrId },
  }
  const [found] = await core.events.list(filter, 1)
  return found && found.sandboxId !== null ? { ...found, sandboxId: found.sandboxId } : undefined
}
