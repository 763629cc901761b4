/**
 * Backs up the whole installation while it runs. Each sandbox is copied as for a snapshot (memory and disk of the same
 * moment). The database is copied last and names exactly what was copied.
 */

import { AppError } from "@bhatti/contract/errors"
import type { SandboxRecord } from "../store/sandboxes.ts"
import { captureSandbox } from "./capture.ts"
import { unneededOwnTemplates } from "./clean-up.ts"
import type { Core, ForRequest, OnHost } from "./core.ts"
import { checkSpace } from "./create-checks.ts"
import type { BackupDraft } from "./host.ts"

export type BackupResult = {
  directory: string
  sandboxes: number
  snapshots: number
  bytes: number
  /** Everything that could not be copied, with the reason. */
  failed: { what: string; reason: string }[]
}

const mebibyte = 1024 * 1024

type Copied = { sandboxes: Map<string, { hasMemory: boolean }>; snapshots: Set<string> }

export async function backUp(
  core: ForRequest &
    Pick<Core, "pool" | "templateBuilds" | "zygotes"> &
    OnHost<"backups" | "keptRows" | "snapshots">,
  options: { directory: string; version: string; signal: AbortSignal; report: (line: string) => void },
): Promise<BackupResult> {
  const { directory, version, signal, report } = options
  const startedAt = core.clock.nowMs()
  await using draft = await core.host.backups.begin(directory)
  const failed: BackupResult["failed"] = []
  const attempt = async (what: string, work: () => Promise<void>) => {
    signal.throwIfAborted()
    try {
      await work()
      report(what)
    } catch (error) {
      signal.throwIfAborted()
      if (draft.isFull) throw error
      core.log.error({ what, error }, "a part of a backup failed")
      failed.push({ what, reason: error instanceof AppError ? error.message : "the daemon's log says why" })
    }
  }
  const copied: Copied = { sandboxes: new Map(), snapshots: new Set() }
  for (const record of await core.store.sandboxes.listOnHost()) {
    if (record.templateId === null || record.state.kind === "creating" || record.state.kind === "destroying")
      continue
    await attempt(`sandbox ${record.name} (${record.id})`, () =>
      addSandbox(core, draft, record, copied, signal),
    )
  }
  for (const { id, name, state, bytes } of await core.store.snapshots.listOnHost()) {
    if (state !== "ready") continue
    await attempt(`snapshot ${name} (${id})`, () =>
      core.turns.take(id, async () => {
        if ((await core.store.snapshots.get(id))?.state !== "ready") return
        if (draft.isBeside) await checkSpace(core, Math.ceil(bytes / mebibyte))
        await draft.add({ kind: "snapshot", id })
        copied.snapshots.add(id)
      }),
    )
  }
  signal.throwIfAborted()
  report("kernels, images, templates, keys and settings")
  // After the sandboxes: of what was copied, every template is known by now.
  const without = await unneededOwnTemplates(core)
  if (draft.isBeside) await checkSpace(core, await draft.commonMib(without))
  await draft.add({ kind: "common", without })
  report("the database")
  const { gone } = await draft.addDatabase((file) => core.store.backUp(file, copied))
  signal.throwIfAborted()
  report("comparing")
  const { bytes } = await draft.finish({ version })
  const count = (kind: "sandbox" | "snapshot") => gone.filter((one) => one.kind === kind).length
  const sandboxes = copied.sandboxes.size - count("sandbox")
  const snapshots = copied.snapshots.size - count("snapshot")
  const ms = Math.round(core.clock.nowMs() - startedAt)
  core.events.record({
    type: "daemon.backup",
    meta: { by: "operator", directory, sandboxes, snapshots, bytes, failed: failed.length, ms },
  })
  return { directory, sandboxes, snapshots, bytes, failed }
}

async function addSandbox(
  core: ForRequest & OnHost<"snapshots">,
  draft: BackupDraft,
  record: SandboxRecord,
  copied: Copied,
  signal: AbortSignal,
): Promise<void> {
  const memoryMib = record.state.kind === "cold" ? 0 : record.memoryMib
  const sizeMib = (await core.host.disks.measureMib(record.id, "all")) + memoryMib
  // Other work takes space meanwhile, so the check is repeated before each copy.
  await checkSpace(core, draft.isBeside ? 2 * sizeMib : sizeMib)
  const draftId = `backup-${crypto.randomUUID()}`
  await using undo = new AsyncDisposableStack()
  undo.defer(() => core.host.snapshots.remove(draftId))
  const { hasMemory } = await core.destroying.watch([record], (destroying) =>
    captureSandbox(core, record, draftId, { signal: AbortSignal.any([signal, destroying]) }),
  )
  await draft.add({ kind: "sandbox", id: record.id, draft: draftId })
  copied.sandboxes.set(record.id, { hasMemory })
}
