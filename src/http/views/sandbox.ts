/** Sandboxes on the wire: what the bodies of requests ask for, and how a sandbox is shown. */

import { unreachable } from "@bhatti/contract/errors"
import type { CreateSandbox, Sandbox, UpdateSandbox, Why } from "@bhatti/contract/sandbox"
import type { EditSandbox } from "../../core/edit.ts"
import { heldText } from "../../core/held.ts"
import type * as core from "../../core/sandbox.ts"
import type * as why from "../../core/why.ts"
import { viewEvent } from "./event.ts"

export function createInput(body: CreateSandbox): core.CreateSandbox {
  return {
    name: body.name,
    from: body.from,
    image: body.image,
    cpus: body.cpus,
    memoryMib: body.memory_mb,
    diskMib: body.disk_size_mb,
    env: body.env,
    secrets: body.secrets,
    labels: body.labels,
    keepHot: body.keep_hot,
    netPolicy: body.net_policy,
    warmAfterSec: body.warm_after,
    coldAfterSec: body.cold_after,
    ttlSec: body.ttl,
    onTtl: body.on_ttl,
    description: body.description,
    init: body.init,
    onBoot: body.on_boot,
    startCommand: body.start_command,
    readyCommand: body.ready_command,
    run: body.run,
    services: body.services,
    initSystem: body.init_system,
    files: body.files.map(({ guest_path: path, content, mode }) => ({
      path,
      bytes: Buffer.from(content, "base64"),
      mode,
    })),
    ifNotExists: body.if_not_exists,
  }
}

export function editInput(body: UpdateSandbox): EditSandbox {
  return {
    name: body.name,
    keepHot: body.keep_hot,
    allowCold: body.allow_cold,
    warmAfterSec: body.warm_after,
    coldAfterSec: body.cold_after,
    ttlSec: body.ttl,
    onTtl: body.on_ttl,
    description: body.description,
    netPolicy: body.net_policy,
    labelsAdd: body.labels_add,
    labelsRemove: body.labels_remove,
    servicesAdd: body.services_add,
    servicesRemove: body.services_remove,
  }
}

export function viewSandbox(sandbox: core.Sandbox): Sandbox {
  return {
    id: sandbox.id,
    name: sandbox.name,
    ...viewState(sandbox),
    held: sandbox.held,
    image: sandbox.imageShownAs ?? sandbox.imageName,
    cpus: sandbox.cpus,
    memory_mb: sandbox.memoryMib,
    disk_size_mb: sandbox.diskMib,
    keep_hot: sandbox.keepHot,
    allow_cold: sandbox.allowCold,
    warm_after: sandbox.warmAfterSec,
    cold_after: sandbox.coldAfterSec,
    ttl: sandbox.ttlSec,
    on_ttl: sandbox.onTtl,
    ends_at: sandbox.endsAt,
    description: sandbox.description,
    on_boot: sandbox.bootScript !== null,
    start_command: sandbox.startCommand,
    ready_command: sandbox.readyCommand,
    main: sandbox.mainCommand,
    image_config: sandbox.imageConfig,
    services: sandbox.services,
    init_system: sandbox.initSystem,
    labels: sandbox.labels,
    urls: sandbox.urls,
    ip: sandbox.ip,
    net_policy: sandbox.netPolicy,
    created_by: sandbox.userId,
    created_at: sandbox.createdAt,
  }
}

function viewState(sandbox: core.Sandbox): Pick<Sandbox, "status" | "status_reason" | "thermal"> {
  const { state, bootReason, held, waitsFor, isInBatch } = sandbox
  // It becomes usable, or is undone, with the others.
  if (isInBatch) return { status: "creating", status_reason: waitsFor, thermal: null }
  // A held machine stands still, whatever its state would be otherwise.
  if (held) return { status: "running", thermal: "warm", status_reason: `paused: ${heldText(held)}` }
  switch (state.kind) {
    case "creating":
      return { status: "creating", status_reason: waitsFor, thermal: null }
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

export function viewWhy(reply: why.Why): Why {
  const { lastTouch, failedStarts } = reply
  return {
    thermal: reply.thermal,
    reason: reply.reason,
    held: reply.held,
    keeps_awake: reply.keepsAwake,
    last_touch: lastTouch && { what: lastTouch.what, seconds_ago: lastTouch.secondsAgo },
    started_from_disk: reply.startedFromDisk,
    panic_console: reply.panicConsole,
    root_read_only: reply.rootReadOnly,
    failed_starts: failedStarts && {
      in_a_row: failedStarts.inARow,
      reason: failedStarts.reason,
      rest_seconds: failedStarts.backOffSec,
    },
    failing_services: reply.failingServices,
    open_streams: reply.openStreams,
    idle_seconds: reply.idleSec,
    changes_in_seconds: reply.changesInSec,
    changes_to: reply.changesTo,
    lifetime: reply.lifetime && {
      ends_at: reply.lifetime.endsAt,
      ends_in_seconds: reply.lifetime.endsInSec,
      action: reply.lifetime.action,
      reason: reply.lifetime.reason,
      warned: reply.lifetime.isWarned,
    },
    destroyed_at: reply.destroyedAt,
    ends: reply.ends.map(viewEvent),
  }
}
