/** The channel to a running guest: opened once, kept, and dropped when its machine is gone. */

import type { SandboxRecord } from "../store/sandboxes.ts"
import { onProcessEnded } from "./boot-script.ts"
import type { Core, ForChannel } from "./core.ts"
import type { Ending } from "./endings.ts"
import type { Guest, Machine } from "./host.ts"
import { refresh } from "./identity.ts"
import { recordAbnormalEnd, recordMemoryKill } from "./process-events.ts"
import { onServiceFailing } from "./services.ts"

type Parts = Pick<Core, "endings" | "events" | "guests" | "onChannelClosed">

/** A guest that misses this deadline loses its memory, so it must suffice even on a host that swaps. */
const adoptDeadlineMs = 30_000

/** Registers the guest's channel for all requests and watches it. */
export function keepGuest(core: Parts, record: SandboxRecord, guest: Guest): void {
  core.guests.set(record.id, guest)
  core.endings.begin(record, guest)
  guest.watch({
    onNamedEnded: (end) => onProcessEnded(core, record, end),
    onAbnormalEnd: (end) => recordAbnormalEnd(core, record, end),
    onMemoryKill: (kill) => recordMemoryKill(core, record, kill),
    onServiceFailing: (state) => onServiceFailing(core, record, state),
  })
  void guest.closed.then(({ reason }) => core.onChannelClosed(record.id, guest, reason))
}

/** Forgets and closes the channel on purpose. Its open requests fail with the reason. */
export function dropGuest(
  core: Pick<Core, "endings" | "guests">,
  id: SandboxRecord["id"],
  ending: Ending,
): void {
  core.endings.tell(id, ending)
  const guest = core.guests.get(id)
  core.guests.delete(id)
  guest?.close()
}

/** Connects to the guest of a machine that already runs, whatever state its last connection was in. */
export async function adoptGuest(core: ForChannel, record: SandboxRecord, machine: Machine): Promise<void> {
  await refreshAndKeep(core, record, await core.host.machines.connect(machine))
}

export async function refreshAndKeep(core: ForChannel, record: SandboxRecord, guest: Guest): Promise<void> {
  try {
    await guest.waitReady({ deadlineMs: adoptDeadlineMs, resync: true })
    // Only a guest that was booted and got no identity refuses this: a clone has its template's, a copy its source's.
    // A record in `creating` is therefore never adopted.
    await refresh(core, record, guest, { deadlineMs: adoptDeadlineMs })
  } catch (error) {
    guest.close()
    throw error
  }
  keepGuest(core, record, guest)
}
