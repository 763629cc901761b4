/** Restarts sandboxes that must never be paused after the daemon or the host has restarted. */

import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Core, ForSettle } from "./core.ts"
import { wakeSandbox } from "./power.ts"
import { settle } from "./settle.ts"

/** Wakes all of them, except those that their owner has stopped and nobody has used since. */
export async function wakeKeptHot(core: ForSettle & Pick<Core, "turns">): Promise<void> {
  for (const record of await core.store.sandboxes.listOnHost()) {
    if (!mustRun(record)) continue
    await core.turns
      .take(record.id, async () => {
        const now = await settle(core, record.id)
        if (now && mustRun(now)) await wakeSandbox(core, now, "keep_hot")
      })
      .catch((error: unknown) =>
        core.log.warn({ sandbox: record.id, error }, "could not wake a sandbox that is kept hot"),
      )
  }
}

function mustRun({ keepHot, state }: SandboxRecord): boolean {
  return keepHot && state.kind !== "hot" && !(state.kind === "cold" && state.isWanted)
}
