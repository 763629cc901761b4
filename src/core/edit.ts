/** Changes the editable properties of a sandbox. */

import { AppError } from "@bhatti/contract/errors"
import { limits } from "@bhatti/contract/limits"
import type { NetPolicyInput } from "@bhatti/contract/network"
import { specOf } from "../store/sandbox-spec.ts"
import type { Account } from "../store/users.ts"
import { attachmentOf } from "./attachment.ts"
import { awake } from "./awake.ts"
import type { Core } from "./core.ts"
import { withFailure } from "./failures.ts"
import { findSandbox, noSandbox } from "./find.ts"
import { machineOf } from "./machine-of.ts"
import { policyAskedFor } from "./policy.ts"
import { describeById, type Sandbox } from "./sandbox.ts"

/** Fields left out stay as they are. */
export type EditSandbox = {
  name?: string | undefined
  keepHot?: boolean | undefined
  allowCold?: boolean | undefined
  /** Null: the host's default. */
  warmAfterSec?: number | null | undefined
  coldAfterSec?: number | null | undefined
  netPolicy?: Partial<NetPolicyInput> | undefined
  labelsAdd?: Record<string, string>
  labelsRemove?: readonly string[]
}

/** Each field's name in the event of its change. */
const eventWords = {
  name: "name",
  keepHot: "keep_hot",
  allowCold: "allow_cold",
  warmAfterSec: "warm_after",
  coldAfterSec: "cold_after",
  netPolicy: "net_policy",
} as const

export async function editSandbox(
  core: Core,
  account: Account,
  nameOrId: string,
  input: EditSandbox,
): Promise<Sandbox> {
  const found = await findSandbox(core, account, nameOrId)
  const { id } = found
  const { labelsAdd = {}, labelsRemove = [] } = input
  const edit = async () => {
    const record = await core.store.sandboxes.get(id)
    if (!record) throw noSandbox(nameOrId)
    const labels = { ...record.labels, ...labelsAdd }
    for (const key of labelsRemove) delete labels[key]
    if (Object.keys(labels).length > limits.labelsMax) {
      throw new AppError("invalid", `a sandbox has at most ${limits.labelsMax} labels`)
    }
    const changes = {
      ...specOf(record),
      name: input.name ?? record.name,
      keepHot: input.keepHot ?? record.keepHot,
      allowCold: input.allowCold ?? record.allowCold,
      netPolicy: input.netPolicy ? policyAskedFor(core, input.netPolicy) : record.netPolicy,
      labels,
      warmAfterSec: input.warmAfterSec === undefined ? record.warmAfterSec : input.warmAfterSec,
      coldAfterSec: input.coldAfterSec === undefined ? record.coldAfterSec : input.coldAfterSec,
    }
    const network = machineOf(core, record) ? core.host.network : null
    await network?.attach(attachmentOf({ ...record, ...changes }))
    try {
      await core.store.sandboxes.edit(id, changes)
    } catch (error) {
      await network?.attach(attachmentOf(record))
      throw error
    }
    const fields = Object.entries(eventWords) as [keyof typeof eventWords, string][]
    const changed = fields.flatMap(([field, word]) => (input[field] === undefined ? [] : [word]))
    if (Object.keys(labelsAdd).length + labelsRemove.length > 0) changed.push("labels")
    const meta = { by: "user", changed: changed.join(",") }
    core.events.record({ type: "sandbox.updated", userId: account.id, sandbox: record, meta })
  }
  const failure = { type: "sandbox.update_failed", sandbox: found } as const
  await withFailure(core, failure, () => core.turns.take(id, edit))
  const edited = await core.store.sandboxes.get(id)
  if (!edited) throw noSandbox(nameOrId)
  if (input.keepHot === true) await awake(core, edited, "edit --keep-hot")
  return describeById(core, id)
}
