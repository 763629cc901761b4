/**
 * Forks a sandbox: new sandboxes start with the source's current memory, disk and running programs, each with its own
 * identity. One pause of the source serves all copies; all are created, or none.
 */

import { AppError } from "@bhatti/contract/errors"
import { specOf } from "../store/sandbox-spec.ts"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Account } from "../store/users.ts"
import { destroyIfAbandoned } from "./abandoned.ts"
import { allOrNone } from "./all-or-none.ts"
import { captureSandbox, checkCopyable, startCopy } from "./capture.ts"
import type { Core, ForRemoval, ForRequest, OnHost } from "./core.ts"
import { addAllNamed, checkSizeLimits, checkSpace, checkStillAwaited } from "./create-checks.ts"
import { removeAgainMs } from "./destroy.ts"
import { findSandbox } from "./find.ts"
import { inParallel } from "./in-parallel.ts"
import { templateToStart } from "./machine-of.ts"
import { namesOf } from "./names.ts"
import { checkSecretsPermitted } from "./permitted.ts"
import { settingsAskedFor } from "./policy.ts"
import { type CreateSandbox, describeById, type Sandbox } from "./sandbox.ts"

/** More would only share the same processors. */
const startsAtOnce = 4

export async function forkSandbox(
  core: ForRequest & ForRemoval & Pick<Core, "waits"> & OnHost<"snapshots">,
  account: Account,
  from: string,
  input: CreateSandbox,
  { count, signal }: { count: number; signal?: AbortSignal | undefined },
): Promise<Sandbox[]> {
  const startedAt = core.clock.nowMs()
  const source = await findSandbox(core, account, from)
  checkCopyable(source)
  checkAsked(source, input)
  const template = await templateToStart(core, source)
  checkSecretsPermitted(account, input.secrets ?? [])
  const secrets = await core.store.secrets.reveal(account.id, input.secrets ?? [])
  checkSizeLimits(account, source)
  const sizeMib = await core.host.disks.measureMib(source.id, "all")
  const countedMib = await core.host.disks.measureMib(source.id, "counted")
  await checkSpace(core, sizeMib * count + (source.state.kind === "cold" ? 0 : source.memoryMib))

  const draftId = `fork-${crypto.randomUUID()}`
  await using draft = new AsyncDisposableStack()
  draft.defer(() => abandonDraft(core, draftId))

  const settings = { ...specOf(source), keepHot: false, ...settingsAskedFor(core, input) }
  const wanted = {
    ...settings,
    lifetime: core.lifetimes.begin(settings),
    usedMib: countedMib,
    env: { ...source.env, ...input.env },
    // A copy gets a secret only if the request names it again.
    secretNames: input.secrets ?? [],
    labels: { ...source.labels, ...input.labels },
  }
  const copies = await addAllNamed(namesOf(input.name, count), (names) =>
    core.store.sandboxes.addAll(
      account,
      names.map((name) => ({ input: { ...wanted, name } })),
      core.host.machines,
    ),
  )
  return await allOrNone(core, copies, async () => {
    for (const { id } of copies) await core.store.sandboxes.setTemplate(id, template.id)
    const { pausedMs } = await core.destroying.watch([source, ...copies], (destroying) =>
      captureSandbox(core, source, draftId, { signal: destroying }),
    )
    const isLast = copies.length === 1
    await core.destroying.watch(copies, (destroying) =>
      inParallel(copies, startsAtOnce, async (copy) => {
        const from = { id: draftId, sandboxId: copy.id, draft: { isLast }, signal: destroying }
        const { hasMemory } = await core.host.snapshots.place(from)
        await startCopy(core, copy, template, { env: { ...copy.env, ...secrets }, hasMemory })
        checkStillAwaited(copy, signal)
      }),
    )
    await core.store.sandboxes.setBatchDone(copies)
    const ms = Math.round(core.clock.nowMs() - startedAt)
    for (const copy of copies) {
      const meta = { by: "user", from: "sandbox", source: source.name, ms, source_paused_ms: pausedMs }
      core.events.record({ type: "sandbox.created", userId: account.id, sandbox: copy, meta })
    }
    destroyIfAbandoned(core, account, copies, signal)
    return Promise.all(copies.map(({ id }) => describeById(core, id)))
  })
}

/** Refuses options that a copy cannot have, rather than ignoring them. */
function checkAsked(source: SandboxRecord, input: CreateSandbox): void {
  const refuse = (what: string) => {
    throw new AppError("invalid", `a copy ${what}`, { hint: "leave it out, or create one without a source" })
  }
  const imageName = source.imageShownAs ?? source.imageName
  const { image = imageName, cpus = source.cpus } = input
  const { memoryMib = source.memoryMib, diskMib = source.diskMib } = input
  if (image !== imageName) refuse(`has its source's image, ${imageName}, not ${image}`)
  if (cpus !== source.cpus) refuse(`has its source's number of cpus, ${source.cpus}, not ${cpus}`)
  if (memoryMib !== source.memoryMib)
    refuse(`has its source's memory, ${source.memoryMib} MB, not ${memoryMib}`)
  if (diskMib !== source.diskMib)
    refuse(`has its source's size of disk, ${source.diskMib} MB, not ${diskMib}`)
  if (input.startCommand !== undefined) refuse("has its source's programs, so there is no start command")
  if (input.run !== undefined) refuse("has its source's programs, so there is none to run")
  if ((input.services ?? []).length > 0) refuse("has its source's services")
  if (input.initSystem !== undefined) refuse("has its source's init")
  if (input.init !== undefined) refuse("continues where its source is, so there is no init script to run")
  if ((input.files ?? []).length > 0) refuse("has its source's files, and is given none at its start")
}

/** The copies do not need the draft, so a failed removal does not fail them; it is retried until it works. */
export async function abandonDraft(
  core: Pick<Core, "clock" | "log"> & OnHost<"snapshots">,
  id: string,
): Promise<void> {
  try {
    await core.host.snapshots.remove(id)
  } catch (error) {
    core.log.error({ draft: id, error }, "could not remove the draft of a copy; retrying")
    core.clock.after(removeAgainMs, () => void abandonDraft(core, id))
  }
}
