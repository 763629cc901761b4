/** Destroys a sandbox. Every step is safe to repeat: after a crash the next start repeats them. */

import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Account } from "../store/users.ts"
import { detach } from "./attachment.ts"
import type { Core, ForRemoval, OnHost } from "./core.ts"
import { withFailure } from "./failures.ts"
import { findSandbox, noSandbox } from "./find.ts"
import { dropGuest } from "./guest-channel.ts"
import { machineOf } from "./machine-of.ts"

type Parts = Pick<
  Core,
  "endings" | "failedStarts" | "guests" | "onUnpublished" | "reboots" | "store" | "touches"
> &
  OnHost<"disks" | "machines" | "network">

/** Delay between retries on a full or failing disk. */
export const removeAgainMs = 5000

/** Takes precedence over everything: running work on the sandbox fails, and queued work finds it gone. */
export async function destroySandbox(
  core: ForRemoval & Pick<Core, "destroying" | "events">,
  account: Account,
  nameOrId: string,
): Promise<void> {
  const found = await findSandbox(core, account, nameOrId)
  await withFailure(core, { type: "sandbox.destroy_failed", sandbox: found }, () =>
    destroyFound(core, account, found),
  )
}

async function destroyFound(
  core: ForRemoval & Pick<Core, "destroying" | "events">,
  account: Account,
  { id, name }: SandboxRecord,
): Promise<void> {
  const isFirst = core.destroying.add(id)
  core.endings.tell(id, { cause: "destroyed", by: account.name })
  try {
    // Without its machine, the holder of the turn fails at once rather than at a deadline.
    if (core.turns.isTaken(id)) await core.host.machines.kill({ id })
    await core.turns.take(id, async () => {
      const record = await core.store.sandboxes.get(id)
      if (record) {
        await removeEverything(core, record).catch((error: unknown) => {
          removeLater(core, record, error)
          throw error
        })
        const meta = { by: "user", user: account.name }
        core.events.record({ type: "sandbox.destroyed", userId: account.id, sandbox: record, meta })
        return
      }
      // An interrupted create has already cleaned up.
      if (!isFirst) throw noSandbox(name)
    })
  } finally {
    if (isFirst) core.destroying.delete(id)
  }
}

/** At the end of its lifetime. Needs the sandbox's turn. */
export async function destroyByDaemon(
  core: ForRemoval & Pick<Core, "destroying" | "events">,
  record: SandboxRecord,
  reason: string,
): Promise<void> {
  const isFirst = core.destroying.add(record.id)
  core.endings.tell(record.id, { cause: "destroyed", hint: `${reason}; an edit of its ttl gives it more` })
  try {
    await removeEverything(core, record)
    const meta = { by: "daemon", reason }
    core.events.record({ type: "sandbox.destroyed", userId: record.userId, sandbox: record, meta })
  } finally {
    if (isFirst) core.destroying.delete(record.id)
  }
}

/** Removes a pooled sandbox, which has no owner. */
export async function removeById(
  core: Pick<Core, "store"> & OnHost<"disks" | "machines">,
  id: SandboxRecord["id"],
): Promise<void> {
  await core.host.machines.kill({ id })
  await core.host.disks.removeSandbox(id)
  await core.store.sandboxes.remove(id)
}

/** Removes a sandbox that failed to be created; if the host refuses, retries later. Needs the sandbox's turn. */
export async function removeFailed(core: ForRemoval, record: SandboxRecord): Promise<void> {
  try {
    await removeEverything(core, record)
  } catch (error) {
    removeLater(core, record, error)
  }
}

/**
 * Retries until the removal works or the daemon ends (the next daemon starts with it). No request would do it: none can
 * see the sandbox.
 */
function removeLater(core: ForRemoval, record: SandboxRecord, error: unknown): void {
  core.log.error({ sandbox: record.id, error }, "could not remove the rest of a sandbox; retrying")
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
export async function removeEverything(core: Parts, record: SandboxRecord): Promise<void> {
  const { machines, disks } = core.host
  const machine = machineOf(record)
  await core.store.sandboxes.setState(record.id, { kind: "destroying" })
  for (const { alias } of await core.store.publishedPorts.listOf([record.id]))
    for (const listener of core.onUnpublished) listener(alias)
  dropGuest(core, record.id, { cause: "destroyed" })
  await Promise.all([
    machines.kill(machine ?? { id: record.id }),
    // The rules go before the record, which frees the address: no other sandbox may get it while they stand.
    detach(core, record.id),
  ])
  await disks.removeSandbox(record.id)
  await core.store.sandboxes.remove(record.id)
  core.touches.delete(record.id)
  core.failedStarts.forget(record.id)
  core.reboots.forget(record.id)
}
