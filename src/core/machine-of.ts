/** The machine that a record speaks of. */

import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Core } from "./core.ts"
import type { Machine } from "./host.ts"

export function machineOf(core: Core, record: SandboxRecord): Machine | undefined {
  if (record.state.kind !== "hot") return undefined
  return { process: record.state.process, directory: core.host.disks.directoryOf(record.id) }
}
