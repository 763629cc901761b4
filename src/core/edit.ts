/** Changes the editable properties of a sandbox. */

import { AppError } from "@bhatti/contract/errors"
import { limits } from "@bhatti/contract/limits"
import { checkInput } from "../rules/input.ts"
import type { Lifetime } from "../store/lifetime.ts"
import { type SandboxSettings, specOf } from "../store/sandbox-spec.ts"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Account } from "../store/users.ts"
import { attachmentOf } from "./attachment.ts"
import { awake, awakeInTurn } from "./awake.ts"
import type { Core, ForRequest } from "./core.ts"
import { changedServices, replaceServices, type ServiceChanges } from "./edit-services.ts"
import { withFailure } from "./failures.ts"
import { findSandbox, noSandbox } from "./find.ts"
import { machineOf } from "./machine-of.ts"
import { checkPermitted } from "./permitted.ts"
import { type RequestedSettings, requestedNames, settingsAskedFor } from "./policy.ts"
import { describeById, type Sandbox } from "./sandbox.ts"

/** Fields left out stay as they are. */
export type EditSandbox = RequestedSettings &
  ServiceChanges & {
    name?: string | undefined
    labelsAdd?: Record<string, string>
    labelsRemove?: readonly string[]
  }

/** A new time to live begins now. A new end is one that nobody has been warned of. Returns undefined if it stays. */
function newLifetime(
  core: Pick<Core, "lifetimes">,
  { lifetime, onTtl }: SandboxRecord,
  { input, changes }: { input: EditSandbox; changes: SandboxSettings },
): Lifetime | null | undefined {
  if (input.ttlSec !== undefined) return core.lifetimes.begin(changes)
  if (onTtl === changes.onTtl) return undefined
  // The former end is over; without a new time the new one would never come.
  if (lifetime?.kind === "ended") return core.lifetimes.begin(changes)
  return lifetime?.kind === "set" ? { ...lifetime, warnedAtMs: null } : undefined
}

/** Returns whether the edit lets a time to live destroy a sandbox that would stay, or would stay for longer. */
function destroysSooner(
  { lifetime: former, onTtl }: SandboxRecord,
  { changes, lifetime }: { changes: SandboxSettings; lifetime: Lifetime | null | undefined },
): boolean {
  if (changes.onTtl !== "destroy" || changes.ttlSec === null) return false
  if (onTtl !== "destroy") return true
  return lifetime?.kind === "set" && !(former?.kind === "set" && former.endsAtMs <= lifetime.endsAtMs)
}

/** A setting's name in the event of its change: `warm_after` for `warmAfterSec`. */
function eventWord(name: string): string {
  return name.replace(/Sec$/, "").replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
}

export async function editSandbox(
  core: ForRequest & Pick<Core, "waits">,
  account: Account,
  nameOrId: string,
  input: EditSandbox,
): Promise<Sandbox> {
  checkInput({ ...input, labels: input.labelsAdd })
  const found = await findSandbox(core, account, nameOrId)
  const { id } = found
  const { labelsAdd = {}, labelsRemove = [], servicesAdd = [], servicesRemove = [] } = input
  // A service is a command.
  if (servicesAdd.length + servicesRemove.length > 0) checkPermitted(account, "exec")
  const edit = async () => {
    const guest = changedServices(found.services, input)
      ? await awakeInTurn(core, found, "an edit of its services")
      : undefined
    await account.confirm?.()
    const record = await core.store.sandboxes.get(id)
    if (!record) throw noSandbox(nameOrId)
    const labels = { ...record.labels, ...labelsAdd }
    for (const key of labelsRemove) delete labels[key]
    if (Object.keys(labels).length > limits.labelsMax) {
      throw new AppError("invalid", `a sandbox has at most ${limits.labelsMax} labels`)
    }
    const services = changedServices(record.services, input)
    const changes = {
      ...specOf(record),
      ...settingsAskedFor(core, input),
      name: input.name ?? record.name,
      labels,
      ...(services && { services }),
    }
    const newEnd = newLifetime(core, record, { input, changes })
    if (destroysSooner(record, { changes, lifetime: newEnd })) checkPermitted(account, "destroy")
    await using undo = new AsyncDisposableStack()
    const network = machineOf(record) ? core.host.network : null
    await network?.attach(attachmentOf({ ...record, ...changes }))
    undo.defer(async () => network?.attach(attachmentOf(record)))
    await core.store.sandboxes.edit(id, { ...changes, lifetime: newEnd })
    const { lifetime, name: before } = record
    undo.defer(() => core.store.sandboxes.edit(id, { ...specOf(record), name: before, lifetime }))
    // Last, since a service that has ended cannot go on: nothing may be refused afterwards.
    if (guest && services) await replaceServices(core, guest, record, services)
    undo.move()
    const changed = requestedNames(input).map(eventWord)
    if (input.name !== undefined) changed.unshift("name")
    if (Object.keys(labelsAdd).length + labelsRemove.length > 0) changed.push("labels")
    if (services) changed.push("services")
    const meta = { by: "user", changed: changed.join(",") }
    core.events.record({ type: "sandbox.updated", userId: account.id, sandbox: record, meta })
  }
  const failure = { type: "sandbox.update_failed", sandbox: found } as const
  await withFailure(core, failure, () => core.turns.take(id, edit))
  const edited = await core.store.sandboxes.get(id)
  if (!edited) throw noSandbox(nameOrId)
  if (input.keepHot === true) await awake(core, edited, "edit")
  return describeById(core, id)
}
