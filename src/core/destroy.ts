/** Destroying a sandbox. Every step is safe to repeat: after a crash in the middle the next start goes through them again. */

import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Account } from "../store/users.ts"
import { dropGuest } from "./attach.ts"
import { detach } from "./attachment.ts"
import type { Core } from "./core.ts"
import { withFailure } from "./failures.ts"
import { findSandbox, noSandbox } from "./find.ts"
import { machineOf } from "./machine-of.ts"

/** When a full or failing disk is asked once more. */
export const removeAgainMs = 5000

/** Wins over everything: what is going on with the sandbox fails, and what waits for its turn finds it gone. */
export async function destroySandbox(core: Core, account: Account, nameOrId: string): Promise<void> {
  const found = await findSandbox(core, account, nameOrId)
  await withFailure(core, { type: "sandbox.destroy_failed", sandbox: found }, () =>
    destroyFound(core, account, found),
  )
}

async function destroyFound(core: Core, account: Account, { id, name }: SandboxRecord): Promise<void> {
  const isFirst = core.doomed.add(id)
  try {
    // Without its machine whoever has the turn fails at once, and not only at a deadline.
    if (core.turns.isTaken(id)) await core.host.machines.killIn(core.host.disks.directoryOf(id))
    await core.turns.take(id, async () => {
      const record = await core.store.sandboxes.get(id)
      if (record) {
        await removeEverything(core, record).catch((error: unknown) => {
          removeLater(core, record, error)
          throw error
        })
        const meta = { by: "user" }
        core.events.record({ type: "sandbox.destroyed", userId: account.id, sandbox: record, meta })
        return
      }
      // A create that was interrupted has cleaned up by itself.
      if (!isFirst) throw noSandbox(name)
    })
  } finally {
    if (isFirst) core.doomed.delete(id)
  }
}

/** What is left of a sandbox that is nobody's: one of the pool. */
export async function removeById(core: Core, id: SandboxRecord["id"]): Promise<void> {
  await core.host.machines.killIn(core.host.disks.directoryOf(id))
  await core.host.disks.removeSandbox(id)
  await core.store.sandboxes.remove(id)
}

/** What came to nothing goes; if the host refuses that too, later. Needs the sandbox's turn. */
export async function removeFailed(core: Core, record: SandboxRecord): Promise<void> {
  try {
    await removeEverything(core, record)
  } catch (error) {
    removeLater(core, record, error)
  }
}

/** Again and again until it works or the daemon ends, whose successor begins with it. Nobody can use it, so nobody else would. */
function removeLater(core: Core, record: SandboxRecord, error: unknown): void {
  core.log.error({ sandbox: record.id, error }, "could not remove what is left of a sandbox; trying again")
  core.clock.after(removeAgainMs, () => {
    void core.turns.take(record.id, async () => {
      try {
        const left = await core.store.sandboxes.get(record.id)
        if (left?.state.kind === "creating" || left?.state.kind === "destroying") {
          await removeEverything(core, left)
        }
      } catch (again) {
        removeLater(core, record, again)
      }
    })
  })
}

/** Needs the sandbox's turn. */
export async function removeEverything(core: Core, record: SandboxRecord): Promise<void> {
  const { machines, disks } = core.host
  const machine = machineOf(core, record)
  await core.store.sandboxes.setState(record.id, { kind: "destroying" })
  for (const { alias } of await core.store.publishedPorts.listOf([record.id])) core.onUnpublished(alias)
  dropGuest(core, record.id)
  await Promise.all([
    machine ? machines.kill(machine) : machines.killIn(disks.directoryOf(record.id)),
    // Before the record goes, and with it the address: nobody may get it while these rules stand.
    detach(core, record.id),
  ])
  await disks.removeSandbox(record.id)
  await core.store.sandboxes.remove(record.id)
  core.touches.delete(record.id)
  core.failedStarts.forget(record.id)
  core.reboots.forget(record.id)
}
