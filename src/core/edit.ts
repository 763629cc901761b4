/** Changes the editable properties of a sandbox. */

import { AppError } from "@bhatti/contract/errors"
import { limits } from "@bhatti/contract/limits"
import type { Sandbox, UpdateSandbox } from "@bhatti/contract/sandbox"
import type { Account } from "../store/users.ts"
import { attachmentOf } from "./attachment.ts"
import { awake } from "./awake.ts"
import type { Core } from "./core.ts"
import { withFailure } from "./failures.ts"
import { findSandbox, noSandbox } from "./find.ts"
import { machineOf } from "./machine-of.ts"
import { policyAskedFor } from "./policy.ts"
import { viewSandboxes } from "./sandbox-view.ts"

export async function editSandbox(
  core: Core,
  account: Account,
  nameOrId: string,
  input: UpdateSandbox,
): Promise<Sandbox> {
  const found = await findSandbox(core, account, nameOrId)
  const { id } = found
  const edit = async () => {
    const record = await core.store.sandboxes.get(id)
    if (!record) throw noSandbox(nameOrId)
    const labels = { ...record.labels, ...input.labels_add }
    for (const key of input.labels_remove) delete labels[key]
    if (Object.keys(labels).length > limits.labelsMax) {
      throw new AppError("invalid", `a sandbox has at most ${limits.labelsMax} labels`)
    }
    const changes = {
      name: input.name ?? record.name,
      keepHot: input.keep_hot ?? record.keepHot,
      allowCold: input.allow_cold ?? record.allowCold,
      netPolicy: input.net_policy ? policyAskedFor(core, input.net_policy) : record.netPolicy,
      labels,
      warmAfterSec: input.warm_after === undefined ? record.warmAfterSec : input.warm_after,
      coldAfterSec: input.cold_after === undefined ? record.coldAfterSec : input.cold_after,
    }
    const network = machineOf(core, record) ? core.host.network : null
    await network?.attach(attachmentOf({ ...record, ...changes }))
    try {
      await core.store.sandboxes.edit(id, changes)
    } catch (error) {
      await network?.attach(attachmentOf(record))
      throw error
    }
    const { labels_add, labels_remove, ...fields } = input
    const changed = [
      ...Object.keys(fields),
      ...(Object.keys(labels_add).length + labels_remove.length > 0 ? ["labels"] : []),
    ]
    const meta = { by: "user", changed: changed.join(",") }
    core.events.record({ type: "sandbox.updated", userId: account.id, sandbox: record, meta })
  }
  const failure = { type: "sandbox.update_failed", sandbox: found } as const
  await withFailure(core, failure, () => core.turns.take(id, edit))
  const edited = await core.store.sandboxes.get(id)
  if (!edited) throw noSandbox(nameOrId)
  if (input.keep_hot === true) await awake(core, edited, "edit --keep-hot")
  const [sandbox] = await viewSandboxes(core, [(await core.store.sandboxes.get(id)) ?? edited])
  if (!sandbox) throw noSandbox(nameOrId)
  return sandbox
}
