/** A user's build cache: finds disks of steps, keeps new ones within the quota, and removes those that nobody uses. */

import { AppError } from "@bhatti/contract/errors"
import type { BuildStep, NewBuildStep } from "../../store/build-cache.ts"
import type { Account } from "../../store/users.ts"
import type { Core, OnHost } from "../core.ts"

type Parts = Pick<Core, "log" | "store"> & OnHost<"snapshots">

/** Begins with what no named snapshot's id begins with. */
export const stepIdPrefix = "build_"
const unusedDaysMax = 14
const userMibMax = 20 * 1024
const mebibyte = 1024 * 1024

/**
 * Keeps the disk that `write` writes; the longest unused of the user's other disks give way. Returns undefined if the
 * quota has no room even then.
 */
export async function keepStep(
  core: Parts,
  account: Account,
  { step, neededMib, spared }: { step: NewBuildStep; neededMib: number; spared: ReadonlySet<string> },
  write: (id: string) => Promise<void>,
): Promise<BuildStep | undefined> {
  const row = await addWithRoom(core, account, { step, neededMib, spared })
  if (!row) return undefined
  await using undo = new AsyncDisposableStack()
  undo.defer(() => removeStep(core, row))
  await write(row.id)
  const { bytes } = await core.host.snapshots.commit(row.id)
  await core.store.buildCache.setReady(row.id, { bytes })
  undo.move()
  return { ...row, state: "ready", bytes }
}

async function addWithRoom(
  core: Parts,
  account: Account,
  { step, neededMib, spared }: { step: NewBuildStep; neededMib: number; spared: ReadonlySet<string> },
): Promise<BuildStep | undefined> {
  const old = (await core.store.buildCache.listOf(account.id)).filter(({ id }) => !spared.has(id))
  let mib = old.reduce((sum, { bytes }) => sum + bytes / mebibyte, 0)
  for (;;) {
    const oldest = old.shift()
    if (mib + neededMib <= userMibMax || !oldest) {
      try {
        return await core.store.buildCache.add(account.id, step, { neededMib })
      } catch (error) {
        if (!(error instanceof AppError) || error.code !== "limit_exceeded") throw error
        if (!oldest) return undefined
      }
    }
    mib -= oldest.bytes / mebibyte
    await removeStep(core, oldest)
  }
}

/** Safe to repeat. */
export async function removeStep(core: Parts, { id }: Pick<BuildStep, "id">): Promise<void> {
  await core.host.snapshots.remove(id)
  await core.store.buildCache.remove(id)
}

/** Removes all of a user's, and returns their bytes. */
export async function pruneBuildCache(core: Parts, account: Account): Promise<number> {
  let freed = 0
  for (const step of await core.store.buildCache.listOf(account.id)) {
    if (step.state !== "ready") continue
    await removeStep(core, step)
    freed += step.bytes
  }
  return freed
}

/** Removes disks that were not used for long, and those of deleted users. */
export async function removeOldSteps(core: Parts, nowMs: number): Promise<void> {
  const steps = await core.store.buildCache.listOnHost()
  const users = await core.store.users.existing(steps.map(({ userId }) => userId))
  const before = new Date(nowMs - unusedDaysMax * 86_400_000).toISOString()
  for (const step of steps) {
    if (step.state !== "ready" || (users.has(step.userId) && step.usedAt >= before)) continue
    core.log.info({ step: step.id }, "removed a disk of the build cache that nobody uses")
    await removeStep(core, step)
  }
  await core.store.buildCache.forgetResultsOnHost()
}

/** When a daemon starts: unfinished disks go, with those that the database does not know. Returns the ids that stay. */
export async function reconcileBuildCache(core: Parts): Promise<Set<string>> {
  const known = new Set<string>()
  for (const step of await core.store.buildCache.listOnHost()) {
    if (step.state === "ready") known.add(step.id)
    else await removeStep(core, step)
  }
  for (const id of await core.host.snapshots.list())
    if (id.startsWith(stepIdPrefix) && !known.has(id)) await core.host.snapshots.remove(id)
  return known
}
