/** The channel to a running guest: opened once, kept, and dropped when its machine is gone. */

import type { SandboxRecord } from "../store/sandboxes.ts"
import { onSessionEnded } from "./boot-script.ts"
import type { Core, ForChannel, OnHost } from "./core.ts"
import type { Guest, Machine } from "./host.ts"
import { refresh } from "./identity.ts"

type Parts = Pick<Core, "events" | "guests" | "log" | "onChannelClosed"> & OnHost<"machines">

/** A guest that misses this deadline loses its memory, so it must suffice even on a host that swaps. */
const adoptDeadlineMs = 30_000

/** Registers the guest's channel for all requests and watches it. */
export function keepGuest(core: Parts, record: SandboxRecord, guest: Guest, machine: Machine): void {
  core.guests.set(record.id, guest)
  guest.share(() => openShared(core, record, machine))
  guest.watch((ended) => onSessionEnded(core, record, ended))
  void guest.closed.then(({ reason }) => core.onChannelClosed(record.id, guest, reason))
}

/** Without shared memory, files take the slower path over the channel. */
function openShared(
  core: Pick<Core, "log"> & OnHost<"machines">,
  record: SandboxRecord,
  machine: Machine,
): number | undefined {
  try {
    return core.host.machines.openSharedMemory(machine)
  } catch (error) {
    core.log.warn({ sandbox: record.id, error }, "a machine's shared memory cannot be opened")
    return undefined
  }
}

/** Forgets and closes the channel on purpose. */
export function dropGuest(core: Pick<Core, "guests">, id: SandboxRecord["id"]): void {
  const guest = core.guests.get(id)
  core.guests.delete(id)
  guest?.close()
}

/** Connects to the guest of a machine that already runs, whatever state its last connection was in. */
export async function adoptGuest(core: ForChannel, record: SandboxRecord, machine: Machine): Promise<void> {
  await refreshAndKeep(core, record, await connect(core, record), machine)
}

export function connect(core: OnHost<"machines">, record: SandboxRecord): Promise<Guest> {
  return core.host.machines.connect(record.id)
}

export async function refreshAndKeep(
  core: ForChannel,
  record: SandboxRecord,
  guest: Guest,
  machine: Machine,
): Promise<void> {
  try {
    await guest.waitReady({ deadlineMs: adoptDeadlineMs, resync: true })
    // Only a guest that was booted and got no identity refuses this: a clone has its template's, a copy its source's.
    // A record in `creating` is therefore never adopted.
    await refresh(core, record, guest, { deadlineMs: adoptDeadlineMs })
  } catch (error) {
    guest.close()
    throw error
  }
  keepGuest(core, record, guest, machine)
}
