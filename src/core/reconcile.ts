/** Start-up: what the store says and what the host has are made one. Nothing else cleans up after a crash. */

import type { SandboxRecord } from "../store/sandboxes.ts"
import { repair } from "./attach.ts"
import type { Core } from "./core.ts"
import { removeEverything } from "./destroy.ts"

export async function reconcile(core: Core): Promise<void> {
  core.host.machines.removeLeftovers()
  const records = await core.store.sandboxes.listAll()
  await Promise.all(records.map((record) => core.turns.take(record.id, () => reconcileOne(core, record))))

  const known = new Set<string>(records.map((record) => record.id))
  for (const id of await core.host.disks.listSandboxes()) {
    if (!known.has(id)) await core.host.disks.removeSandbox(id)
  }
}

async function reconcileOne(core: Core, record: SandboxRecord): Promise<void> {
  try {
    switch (record.state.kind) {
      case "hot":
        return await repair(core, record, "the daemon was restarted")
      case "creating":
      case "destroying":
        core.log.info(
          { sandbox: record.id, state: record.state.kind },
          "removing what a crash left of a sandbox",
        )
        return await removeEverything(core, record)
      case "broken":
        return
    }
  } catch (error) {
    core.log.error({ sandbox: record.id, error }, "could not reconcile a sandbox")
  }
}
