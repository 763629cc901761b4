/**
 * Named snapshots: taken from a running sandbox, listed, deleted, and started as new sandboxes any number of times. The
 * new sandboxes are independent copies, so a snapshot can be deleted while they exist.
 */

import { AppError } from "@bhatti/contract/errors"
import { checkInput, checkSnapshotName } from "../rules/input.ts"
import { specOf } from "../store/sandbox-spec.ts"
import type { SnapshotRecord } from "../store/snapshots.ts"
import type { Account } from "../store/users.ts"
import { destroyIfAbandoned } from "./abandoned.ts"
import { reconcileBuildCache } from "./build/cache.ts"
import { captureSandbox, checkCopyable, startCopy } from "./capture.ts"
import type { Core, ForRemoval, ForRequest, OnHost } from "./core.ts"
import { addNamed, checkSizeLimits, checkSpace, checkStillAwaited } from "./create-checks.ts"
import { removeFailed } from "./destroy.ts"
import { recordFailure, withFailure } from "./failures.ts"
import { findSandbox } from "./find.ts"
import { checkSecretsPermitted } from "./permitted.ts"
import { describeById, type Sandbox } from "./sandbox.ts"

export async function createSnapshot(
  core: ForRequest & OnHost<"snapshots">,
  account: Account,
  nameOrId: string,
  name: string,
): Promise<SnapshotRecord> {
  const startedAt = core.clock.nowMs()
  checkSnapshotName(name)
  const source = await findSandbox(core, account, nameOrId)
  checkCopyable(source)
  const sizeMib = await core.host.disks.measureMib(source.id, "all")
  await checkSpace(core, sizeMib + (source.state.kind === "cold" ? 0 : source.memoryMib))
  const record = await core.store.snapshots.add(account, name, source, { neededMib: sizeMib })
  return core.turns.take(record.id, async () => {
    const { snapshots } = core.host
    await using undo = new AsyncDisposableStack()
    undo.defer(() => core.store.snapshots.remove(record.id))
    undo.defer(() => snapshots.remove(record.id))
    try {
      const { hasMemory, pausedMs } = await core.destroying.watch([source], (signal) =>
        captureSandbox(core, source, record.id, { signal }),
      )
      const { bytes } = await snapshots.commit(record.id)
      await core.store.snapshots.setReady(record.id, { hasMemory, bytes })
      undo.move()
      core.events.record({
        type: "snapshot.created",
        userId: account.id,
        sandbox: source,
        meta: {
          by: "user",
          snapshot: name,
          bytes,
          has_memory: hasMemory,
          ms: Math.round(core.clock.nowMs() - startedAt),
          source_paused_ms: pausedMs,
        },
      })
      return { ...record, state: "ready", hasMemory, bytes }
    } catch (cause) {
      recordFailure(
        core,
        { type: "snapshot.create_failed", sandbox: source, meta: { snapshot: name } },
        cause,
      )
      if (cause instanceof AppError) throw cause
      throw new AppError(
        "unavailable",
        `the snapshot of "${source.name}" failed; the sandbox keeps running`,
        {
          cause,
          hint: "the daemon's log says why; try again",
        },
      )
    }
  })
}

export async function listSnapshots(core: Pick<Core, "store">, account: Account): Promise<SnapshotRecord[]> {
  return core.store.snapshots.listOf(account.id)
}

export async function deleteSnapshot(
  core: Pick<Core, "events" | "store" | "turns"> & OnHost<"snapshots">,
  account: Account,
  nameOrId: string,
): Promise<void> {
  const { id, name } = await findSnapshot(core, account, nameOrId)
  await core.turns.take(id, async () => {
    const record = await core.store.snapshots.get(id)
    if (!record) throw noSnapshot(nameOrId)
    const failure = {
      type: "snapshot.delete_failed",
      sandbox: { userId: account.id },
      meta: { snapshot: name },
    } as const
    await withFailure(core, failure, () => removeSnapshotRecord(core, record))
    core.events.record({
      type: "snapshot.deleted",
      userId: account.id,
      meta: { by: "user", snapshot: record.name },
    })
  })
}

/** Safe to repeat: after a crash the next start repeats it. */
async function removeSnapshotRecord(
  core: Pick<Core, "store"> & OnHost<"snapshots">,
  record: SnapshotRecord,
): Promise<void> {
  await core.store.snapshots.setDeleting(record.id)
  await core.host.snapshots.remove(record.id)
  await core.store.snapshots.remove(record.id)
}

/** Starts a new sandbox from the snapshot, with its own identity. */
export async function resumeSnapshot(
  core: ForRequest & ForRemoval & Pick<Core, "waits"> & OnHost<"snapshots">,
  account: Account,
  nameOrId: string,
  input: { name?: string | undefined; secrets: string[] },
  { signal }: { signal?: AbortSignal | undefined } = {},
): Promise<Sandbox> {
  const startedAt = core.clock.nowMs()
  checkInput(input)
  const snapshot = await findSnapshot(core, account, nameOrId)
  if (snapshot.state !== "ready") throw notReady(snapshot)
  const template = await core.host.templates.get(snapshot.templateId)
  await core.host.images.checkImage({ name: snapshot.imageName, hash: snapshot.imageHash })
  checkSecretsPermitted(account, input.secrets)
  const secrets = await core.store.secrets.reveal(account.id, input.secrets)
  checkSizeLimits(account, snapshot)
  await checkSpace(core, Math.ceil(snapshot.bytes / 1024 / 1024))
  const record = await addNamed(input.name, (name) =>
    core.store.sandboxes.add(
      account,
      {
        ...specOf(snapshot),
        lifetime: core.lifetimes.begin(snapshot),
        name,
        usedMib: Math.ceil(snapshot.bytes / 1024 / 1024),
        // A copy gets a secret only if the request names it again.
        secretNames: input.secrets,
      },
      core.host.machines,
    ),
  )
  const failure = {
    type: "snapshot.resume_failed",
    sandbox: record,
    meta: { snapshot: snapshot.name },
  } as const
  const resume = async () => {
    await using undo = new AsyncDisposableStack()
    undo.defer(() => removeFailed(core, record))
    await core.store.sandboxes.setTemplate(record.id, template.id)
    // The snapshot's turn prevents its deletion during the copy.
    const place = async (destroying: AbortSignal) => {
      const now = await core.store.snapshots.get(snapshot.id)
      if (now?.state !== "ready") throw now ? notReady(now) : noSnapshot(nameOrId)
      return core.host.snapshots.place({ id: snapshot.id, sandboxId: record.id, signal: destroying })
    }
    const { hasMemory } = await core.destroying.watch([record], (destroying) =>
      core.turns.take(snapshot.id, () => place(destroying), { signal: destroying }),
    )
    await startCopy(core, record, template, { env: { ...record.env, ...secrets }, hasMemory })
    const sandbox = await describeById(core, record.id)
    checkStillAwaited(record, signal)
    undo.move()
    core.events.record({
      type: "snapshot.resumed",
      userId: account.id,
      sandbox: record,
      meta: {
        by: "user",
        snapshot: snapshot.name,
        how: sandbox.bootReason === null ? "memory" : "disk",
        reason: sandbox.bootReason,
        ms: Math.round(core.clock.nowMs() - startedAt),
      },
    })
    destroyIfAbandoned(core, account, [sandbox], signal)
    return sandbox
  }
  return withFailure(core, failure, () => core.turns.take(record.id, resume))
}

/** Start-up: removes unfinished snapshots, whose requests were never answered; returns directories without a row. */
export async function reconcileSnapshots(
  core: Pick<Core, "log" | "store"> & OnHost<"snapshots">,
): Promise<string[]> {
  const { snapshots } = core.host
  await snapshots.removeUnfinished()
  const known = await reconcileBuildCache(core)
  for (const record of await core.store.snapshots.listOnHost()) {
    if (record.state === "ready") known.add(record.id)
    else await removeSnapshotRecord(core, record)
  }
  return (await snapshots.list()).filter((id) => !known.has(id))
}

export async function findSnapshot(
  core: Pick<Core, "store">,
  account: Account,
  nameOrId: string,
): Promise<SnapshotRecord> {
  const record = await core.store.snapshots.find(account.id, nameOrId)
  if (record) return record
  throw noSnapshot(nameOrId)
}

function noSnapshot(nameOrId: string): AppError {
  return new AppError("not_found", `no snapshot named "${nameOrId}"`, {
    subject: { kind: "snapshot", name: nameOrId },
  })
}

function notReady(snapshot: SnapshotRecord): AppError {
  const doing = snapshot.state === "creating" ? "being made" : "being deleted"
  return new AppError("unavailable", `snapshot "${snapshot.name}" is ${doing}`, {
    hint: "try again in a moment",
  })
}
