/** Stopping and starting a sandbox because its owner says so. */

import { AppError } from "../contract/errors.ts"
import type { Sandbox } from "../contract/sandbox.ts"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Account } from "../store/users.ts"
import { awake } from "./awake.ts"
import type { Core } from "./core.ts"
import { findSandbox, noSandbox } from "./find.ts"
import { stopSandbox } from "./power.ts"
import { viewSandboxes } from "./sandbox-view.ts"
import { settle } from "./settle.ts"

/** Stopping what is stopped changes nothing. */
export async function stopByName(core: Core, account: Account, nameOrId: string): Promise<Sandbox> {
  const { id } = await findSandbox(core, account, nameOrId)
  await core.turns.take(id, async () => {
    const record = await settle(core, id)
    if (!record) throw noSandbox(nameOrId)
    const { kind } = await stopSandbox(core, record)
    if (kind === "cold") return
    throw new AppError("unavailable", `sandbox "${record.name}" is ${kind}`, {
      hint: "try again in a moment",
    })
  })
  return show(core, id, nameOrId)
}

export async function startByName(core: Core, account: Account, nameOrId: string): Promise<Sandbox> {
  const record = await findSandbox(core, account, nameOrId)
  await awake(core, record)
  return show(core, record.id, nameOrId)
}

async function show(core: Core, id: SandboxRecord["id"], nameOrId: string): Promise<Sandbox> {
  const record = await core.store.sandboxes.get(id)
  const [sandbox] = record ? await viewSandboxes(core, [record]) : []
  if (!sandbox) throw noSandbox(nameOrId)
  return sandbox
}
