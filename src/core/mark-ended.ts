/** Records that a sandbox's machine has ended and only its disk is left. */

import type { LossReason } from "@bhatti/contract/errors"
import type { SandboxRecord } from "../store/sandboxes.ts"
import { detach } from "./attachment.ts"
import type { Core, OnHost } from "./core.ts"
import { dropGuest } from "./guest-channel.ts"
import type { MachineEnd } from "./host.ts"

export async function coldWithoutMemory(
  core: Pick<Core, "store">,
  record: SandboxRecord,
  reason: string,
): Promise<void> {
  await core.store.sandboxes.setState(record.id, { kind: "cold", hasSnapshot: false, reason })
}

/** The machine is gone; only the disk is left. */
export async function markEnded(
  core: Pick<Core, "endings" | "events" | "guests" | "store"> & OnHost<"machines" | "network">,
  record: SandboxRecord,
  { cause, reason, end }: { cause: LossReason; reason: string; end?: MachineEnd | undefined },
): Promise<void> {
  dropGuest(core, record.id, { cause })
  await detach(core, record.id)
  await core.host.machines.removeSnapshot(record.id)
  await coldWithoutMemory(core, record, reason)
  const byGuest = end && { how: end.how, ...(end.how === "panic" && { console: lastOf(end.console) }) }
  const meta = { by: end ? "guest" : "daemon", cause, reason, ...byGuest }
  core.events.record({ type: "sandbox.ended", userId: record.userId, sandbox: record, meta })
}

/** Limit on console text in an event. */
const consoleCharacters = 2000

function lastOf(console: string): string {
  return console.trim().slice(-consoleCharacters)
}
