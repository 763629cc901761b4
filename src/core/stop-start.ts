/** Stops and starts a sandbox at its owner's request. */

import { AppError } from "@bhatti/contract/errors"
import type { Account } from "../store/users.ts"
import { awake } from "./awake.ts"
import type { Core, ForRequest, ForSettle } from "./core.ts"
import { withFailure } from "./failures.ts"
import { findSandbox, noSandbox } from "./find.ts"
import { stopSandbox } from "./power.ts"
import { describeById, type Sandbox } from "./sandbox.ts"
import { settle } from "./settle.ts"

/** A sandbox that is already stopped stays so; the owner's wish is recorded. */
export async function stopByName(
  core: ForSettle & Pick<Core, "turns" | "waits">,
  account: Account,
  nameOrId: string,
): Promise<Sandbox> {
  const found = await findSandbox(core, account, nameOrId)
  const { id } = found
  const stop = async () => {
    const startedAt = core.clock.nowMs()
    const settled = await settle(core, id)
    if (!settled) throw noSandbox(nameOrId)
    const record = await core.space.checkInTurn(settled)
    if (record.state.kind === "cold") {
      return core.store.sandboxes.setState(id, { ...record.state, isWanted: true })
    }
    const { kind } = await stopSandbox(core, record, {
      isWanted: true,
      ending: { cause: "stopped", by: account.name },
    })
    if (kind === "cold") {
      const ms = Math.round(core.clock.nowMs() - startedAt)
      const meta = { by: "user", ms }
      return core.events.record({ type: "sandbox.stopped", userId: account.id, sandbox: record, meta })
    }
    throw new AppError("unavailable", `sandbox "${record.name}" is ${kind}`, {
      hint: "try again in a moment",
    })
  }
  const failure = { type: "sandbox.stop_failed", sandbox: found } as const
  await withFailure(core, failure, () => core.turns.take(id, stop))
  return describeById(core, id)
}

export async function startByName(
  core: ForRequest & Pick<Core, "waits">,
  account: Account,
  nameOrId: string,
  options: { force: boolean },
): Promise<Sandbox> {
  const record = await findSandbox(core, account, nameOrId)
  await core.space.insist(record)
  await awake(core, record, "start", options)
  if (record.state.kind !== "hot") {
    core.events.record({ type: "sandbox.started", userId: account.id, sandbox: record, meta: { by: "user" } })
  }
  return describeById(core, record.id)
}
