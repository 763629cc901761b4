/** A sandbox's record as its owner sees it. */

import { unreachable } from "@bhatti/contract/errors"
import type { Sandbox } from "@bhatti/contract/sandbox"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Core } from "./core.ts"
import { noSandbox } from "./find.ts"
import { urlOf } from "./publish.ts"
import { heldText } from "./space.ts"

export async function viewSandboxes(core: Core, records: SandboxRecord[]): Promise<Sandbox[]> {
  const published = await core.store.publishedPorts.listOf(records.map(({ id }) => id))
  const bySandbox = Map.groupBy(published, ({ sandboxId }) => sandboxId)
  return records.map((record) => {
    const own = bySandbox.get(record.id) ?? []
    const urls = own.map(({ alias }) => urlOf(core, alias))
    const sandbox = viewSandbox(core, record, urls)
    const wait = core.waits.get(record.id)
    return wait === undefined ? sandbox : { ...sandbox, status_reason: wait }
  })
}

export async function viewById(core: Core, id: SandboxRecord["id"]): Promise<Sandbox> {
  const record = await core.store.sandboxes.get(id)
  const [sandbox] = record ? await viewSandboxes(core, [record]) : []
  if (!sandbox) throw noSandbox(id)
  return sandbox
}

export function viewSandbox(core: Core, record: SandboxRecord, urls: string[] = []): Sandbox {
  return {
    id: record.id,
    name: record.name,
    ...viewState(record),
    ...viewHeld(core, record),
    image: record.imageName,
    cpus: record.cpus,
    memory_mb: record.memoryMib,
    disk_size_mb: record.diskMib,
    keep_hot: record.keepHot,
    allow_cold: record.allowCold,
    warm_after: record.warmAfterSec,
    cold_after: record.coldAfterSec,
    on_boot: record.bootScript !== null,
    labels: record.labels,
    urls,
    ip: core.host.network?.identityOf(record).address ?? null,
    net_policy: record.netPolicy,
    created_by: record.userId,
    created_at: record.createdAt,
  }
}

/** A held machine stands still, whatever its state would be otherwise. */
function viewHeld(
  core: Core,
  record: SandboxRecord,
): Pick<Sandbox, "held"> & Partial<Pick<Sandbox, "status" | "status_reason" | "thermal">> {
  const held = core.space.heldOf(record)
  if (held === undefined) return { held: null }
  return { held, status: "running", thermal: "warm", status_reason: `paused: ${heldText(held)}` }
}

function viewState({
  state,
  bootReason,
}: SandboxRecord): Pick<Sandbox, "status" | "status_reason" | "thermal"> {
  switch (state.kind) {
    case "creating":
      return { status: "creating", status_reason: null, thermal: null }
    case "hot":
      return { status: "running", status_reason: bootReason, thermal: "hot" }
    case "warm":
      return { status: "running", status_reason: bootReason, thermal: "warm" }
    case "stopping":
    case "waking":
      return { status: state.kind, status_reason: null, thermal: null }
    case "cold":
      return { status: "stopped", status_reason: state.reason, thermal: "cold" }
    case "destroying":
      return { status: "destroying", status_reason: null, thermal: null }
    default:
      return unreachable(state)
  }
}
