/**
 * The start of a new sandbox's machine: forked from its template's zygote where there is one, else cloned. A fork that
 * fails, at whatever step, becomes a clone within the same start.
 */

import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Core, OnHost } from "./core.ts"
import type { Started, Template } from "./host.ts"
import { placeOf } from "./machine-of.ts"

/** A forked guest answers within 50 ms on an idle host. */
const answerDeadlineMs = 5000

type Parts = Pick<Core, "zygotes"> & OnHost<"disks" | "machines">
type Place = Pick<SandboxRecord, "id" | "slot" | "diskMib">

/** Makes the disk too. */
export async function forkOrClone(core: Parts, place: Place, template: Template): Promise<Started> {
  const zygote = core.zygotes.of(template.id)
  await core.host.disks.createSandbox({ id: place.id, template, isForked: zygote !== undefined })
  if (!zygote) return core.host.machines.start(placeOf(place, template), { kind: "template" })
  const started = await core.host.machines.start(placeOf(place, template), { kind: "template", zygote })
  if (started.fork !== "done") {
    core.zygotes.onFork(zygote, started.fork ?? { error: new Error("the host did not try") })
    return started
  }
  try {
    await started.guest.waitReady({ deadlineMs: answerDeadlineMs })
    core.zygotes.onFork(zygote, "done")
    return started
  } catch (error) {
    core.zygotes.onFork(zygote, { error })
  }
  started.guest.close()
  await core.host.machines.kill(started.machine)
  // Its guest may have written.
  await core.host.disks.removeSandbox(place.id)
  await core.host.disks.createSandbox({ id: place.id, template })
  return core.host.machines.start(placeOf(place, template), { kind: "template" })
}
