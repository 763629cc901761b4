/**
 * The channel to a running guest: opened once, kept, opened again when it breaks, given up when its machine is gone.
 */

import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Core } from "./core.ts"
import type { Guest, Machine } from "./host.ts"
import { refresh } from "./identity.ts"
import { machineOf, rememberMachine } from "./machine-of.ts"
import { markEnded } from "./power.ts"

const adoptDeadlineMs = 5000
/** A machine whose channel has closed may be about to end; then it was not its guest that failed. */
const endDeadlineMs = 1000

/** Keeps the guest's channel for everybody and watches over it. */
export function keepGuest(core: Core, record: SandboxRecord, guest: Guest): void {
  core.guests.set(record.id, guest)
  void guest.closed.then(({ reason }) => onClosed(core, record.id, guest, reason))
}

/** Forgets and closes the channel, on purpose. */
export function dropGuest(core: Core, id: SandboxRecord["id"]): void {
  const guest = core.guests.get(id)
  core.guests.delete(id)
  guest?.close()
}

/** Connects to the guest of a machine that is running already, whatever its last connection was in the middle of. */
export async function adoptGuest(core: Core, record: SandboxRecord): Promise<void> {
  const directory = core.host.disks.directoryOf(record.id)
  const guest = await core.host.guests.open({ socketPath: core.host.machines.agentSocket(directory) })
  try {
    await guest.waitReady({ deadlineMs: adoptDeadlineMs, resync: true })
    // Refused by a guest that was given no identity before the daemon died.
    await refresh(core, record, guest, { deadlineMs: adoptDeadlineMs })
  } catch (error) {
    guest.close()
    throw error
  }
  keepGuest(core, record, guest)
}

async function onClosed(core: Core, id: SandboxRecord["id"], guest: Guest, reason: string): Promise<void> {
  // Somebody closed it on purpose, or another channel has taken its place.
  if (core.guests.get(id) !== guest) return
  core.guests.delete(id)
  try {
    await core.turns.take(id, async () => {
      const record = await core.store.sandboxes.get(id)
      const hasMachine = record?.state.kind === "hot" || record?.state.kind === "warm"
      if (record && hasMachine && !core.guests.has(id)) await repair(core, record, reason)
    })
  } catch (error) {
    core.log.error({ sandbox: id, error }, "could not repair a sandbox whose channel closed")
  }
}

/** Connects to a running machine's guest; false: it does not answer. Needs the sandbox's turn. */
export async function adopt(core: Core, record: SandboxRecord, machine: Machine): Promise<boolean> {
  const { machines } = core.host
  try {
    // A paused guest cannot answer, and what an interrupted copy has left is not this sandbox's.
    await machines.resume(machine)
    await adoptGuest(core, record)
    await machines.removeSnapshot(machine.directory)
  } catch (error) {
    dropGuest(core, record.id)
    core.log.warn(
      { sandbox: record.id, error, ...(await machines.diagnose(machine)) },
      "a machine does not answer",
    )
    return false
  }
  try {
    await core.store.sandboxes.setState(record.id, { kind: "hot", machine: rememberMachine(machine) })
  } catch (error) {
    // It answers, and is not given up because the database cannot be written now; the next one tries again.
    dropGuest(core, record.id)
    throw error
  }
  core.log.info({ sandbox: record.id }, "adopted a running sandbox")
  return true
}

/** A hot or warm sandbox without a channel: connected again if its machine runs, else it has only its disk. Needs its turn. */
export async function repair(core: Core, record: SandboxRecord, reason: string): Promise<void> {
  const machine = machineOf(core, record)
  if (!machine) return
  const { machines } = core.host
  if (machines.isRunning(machine) && (await adopt(core, record, machine))) return
  const wasAlive = !(await machines.endsWithin(machine, { deadlineMs: endDeadlineMs }))
  const words = await machines.diagnose(machine)
  await machines.kill(machine)
  const ended = wasAlive ? "its guest did not answer" : "its machine ended: switched off inside, or killed"
  await markEnded(core, record, ended)
  core.log.warn({ sandbox: record.id, reason, ...words }, ended)
}
