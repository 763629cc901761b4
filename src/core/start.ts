/**
 * The one way to start a machine: from a template, from saved memory, or from its disk. The daemon connects to the
 * guest before the machine runs, so that no message is lost. A start that fails is undone here.
 */

import type { SandboxRecord } from "../store/sandboxes.ts"
import { beginAttach, detach, finishAttach } from "./attachment.ts"
import type { Core, ForChannel, OnHost } from "./core.ts"
import { keepGuest } from "./guest-channel.ts"
import type { Guest, Kernel, Started, Template } from "./host.ts"
import { placeOf, rememberMachine } from "./machine-of.ts"

export const readyDeadlineMs = 30_000

export type StartFrom =
  /** A machine of the pool, which is paused and already has its link. */
  | { kind: "pool"; started: Started }
  /** `start` makes the sandbox's disk too, while its rules are set up. */
  | { kind: "template"; start: () => Promise<Started> }
  /** Saved memory, which is removed as soon as the sandbox runs: the disk no longer matches it then. */
  | { kind: "memory"; template: Template }
  | { kind: "disk"; template: Template; kernel: Kernel }

type ForStarting = OnHost<"machines"> & Pick<Core, "zygotes">

export type Start = {
  from: StartFrom
  /** Gives the guest its identity. */
  giveIdentity(started: Started): Promise<unknown>
  /** Prepares the guest, whose network works already. */
  prepareGuest?: (guest: Guest) => Promise<void>
  /** Why the sandbox does not start from its memory; its owner sees it. */
  bootReason?: string | null
  /** Runs after a failed start, once the machine has ended. `hasRun`: the guest may have changed its disk. */
  onFailure?: (hasRun: boolean) => Promise<void>
}

/** Starts a sandbox's machine and opens it for requests. Needs its turn. */
export async function startSandbox(
  core: ForChannel & Pick<Core, "destroying">,
  record: SandboxRecord,
  { from, giveIdentity, prepareGuest, bootReason = null, onFailure }: Start,
): Promise<{ guest: Guest; state: SandboxRecord["state"] }> {
  const { machines } = core.host
  await using undo = new AsyncDisposableStack()
  let started: Started | undefined
  // Stops at a failed step: a second machine on the same disk would destroy it.
  undo.defer(async () => {
    await machines.kill({ id: record.id })
    await detach(core, record.id)
    await onFailure?.(started !== undefined)
  })
  const attaching = beginAttach(core, record)
  started = await start(core, record, from, undo)
  const { machine, guest } = started
  core.destroying.check(record)
  // Restored memory may hold the end of an earlier connection, in the middle of a frame.
  if (from.kind === "memory") await guest.waitReady({ deadlineMs: readyDeadlineMs, resync: true })
  const attached = () => (from.kind === "pool" ? attaching : finishAttach(core, record, attaching))
  // The guest of a template has no address that the network could wait for; any other first becomes who it is.
  if (from.kind === "template") await Promise.all([giveIdentity(started), attached()])
  else {
    await giveIdentity(started)
    await attached()
  }
  await prepareGuest?.(guest)
  if (bootReason !== record.bootReason) await core.store.sandboxes.setBootReason(record.id, bootReason)
  const state: SandboxRecord["state"] = { kind: "hot", machine: rememberMachine(machine) }
  await core.store.sandboxes.setState(record.id, state)
  keepGuest(core, record, guest)
  if (from.kind === "memory") await machines.removeSnapshot(record.id)
  undo.move()
  return { guest, state }
}

async function start(
  core: ForStarting,
  record: SandboxRecord,
  from: StartFrom,
  undo: AsyncDisposableStack,
): Promise<Started> {
  if (from.kind === "pool") {
    undo.defer(() => from.started.guest.close())
    return from.started
  }
  const { machines } = core.host
  if (from.kind === "disk") await machines.removeSnapshot(record.id)
  const started = await startAfresh(core, record, from)
  undo.defer(() => started.guest.close())
  undo.defer(() => machines.kill(started.machine))
  return started
}

async function startAfresh(
  { host: { machines }, zygotes }: ForStarting,
  record: SandboxRecord,
  from: Exclude<StartFrom, { kind: "pool" }>,
): Promise<Started> {
  if (from.kind === "template") return from.start()
  const place = placeOf(record, from.template)
  const zygote = from.kind === "memory" ? zygotes.ofWake(from.template.id) : undefined
  if (from.kind === "disk" || !zygote) return machines.start(place, from)
  const started = await machines.start(place, { kind: "memory", zygote })
  if (started.fork) zygotes.onWake(zygote, started.fork)
  return started
}
