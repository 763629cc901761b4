/**
 * A sandbox's place in the network: its rules before the machine runs, its link afterwards, neither while it is
 * stopped.
 */

import type { SandboxRecord } from "../store/sandboxes.ts"
import type { OnHost } from "./core.ts"
import type { Attachment } from "./host.ts"
import { hostnameOf } from "./identity.ts"

export function attachmentOf(record: SandboxRecord): Attachment {
  return {
    id: record.id,
    slot: record.slot,
    owner: record.userId,
    hostname: hostnameOf(record.name).toLowerCase(),
    policy: record.netPolicy,
  }
}

/**
 * Begins to set up the sandbox's rules, in parallel with the rest of the start. No request may use the sandbox before
 * that ends.
 */
export function beginAttach(core: OnHost<"network">, record: SandboxRecord): Promise<void> {
  const attaching = core.host.network?.attach(attachmentOf(record)) ?? Promise.resolve()
  // Marks the promise as handled: the start awaits it, but may fail earlier.
  attaching.catch(() => undefined)
  return attaching
}

/** Waits for the rules and sets the link up. */
export async function finishAttach(
  core: OnHost<"network">,
  record: SandboxRecord,
  attaching: Promise<void>,
): Promise<void> {
  await attaching
  await core.host.network?.linkUp(record)
}

/** Safe to repeat. */
export async function detach(core: OnHost<"network">, id: SandboxRecord["id"]): Promise<void> {
  await core.host.network?.detach(id)
}

/** Attaches exactly the sandboxes that have a machine, when the daemon starts. */
export async function resyncNetwork(core: OnHost<"network">, records: SandboxRecord[]): Promise<void> {
  const withMachine = new Set<SandboxRecord["state"]["kind"]>(["hot", "warm", "stopping", "waking"])
  await core.host.network?.resync(
    records.filter(({ state }) => withMachine.has(state.kind)).map(attachmentOf),
  )
}
