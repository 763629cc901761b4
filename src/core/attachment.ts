/** A sandbox's place in the network: rules before its machine runs, a link after, nothing when it does not. */

import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Core } from "./core.ts"
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

/** Begins to set up the sandbox's rules, beside whatever else it takes to start it. Nobody may use it before that is done. */
export function beginAttach(core: Core, record: SandboxRecord): Promise<void> {
  const attaching = core.host.network?.attach(attachmentOf(record)) ?? Promise.resolve()
  // Whoever starts the sandbox waits for it, but may fail before.
  attaching.catch(() => undefined)
  return attaching
}

/** The rules stand, and the link is up. */
export async function finishAttach(
  core: Core,
  record: SandboxRecord,
  attaching: Promise<void>,
): Promise<void> {
  await attaching
  await core.host.network?.linkUp(record)
}

/** Safe to repeat. */
export async function detach(core: Core, id: SandboxRecord["id"]): Promise<void> {
  await core.host.network?.detach(id)
}

/** At the start of the daemon: exactly those that have a machine are attached. */
export async function resyncNetwork(core: Core, records: SandboxRecord[]): Promise<void> {
  const withMachine = new Set<SandboxRecord["state"]["kind"]>(["hot", "warm", "stopping", "waking"])
  await core.host.network?.resync(
    records.filter(({ state }) => withMachine.has(state.kind)).map(attachmentOf),
  )
}
