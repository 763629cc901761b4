/**
 * Periodic clean-up: copies the database, evicts unused templates when they take too much space, and removes unused
 * images, kernels and copies of QEMU.
 */

import { templateGraceMs, templatesToRemove } from "../rules/template-clean-up.ts"
import { sleep } from "./clock.ts"
import type { Core, OnHost } from "./core.ts"
import { templateSpec } from "./template.ts"

type Parts = Pick<Core, "clock" | "events" | "log" | "pool" | "settings" | "store"> &
  OnHost<"images" | "keptRows" | "machines" | "templates">

const everyMs = 600_000

/** Runs until the signal aborts. */
export async function cleanUp(core: Parts, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    try {
      await removeUnusedTemplates(core, core.clock.unixMs())
      await removeUnusedImages(core)
      for (const qemu of await core.host.machines.removeUnusedQemus())
        core.log.info({ qemu }, "removed a copy of QEMU that nothing needs")
    } catch (error) {
      core.log.error({ error }, "unused files could not be removed")
    }
    await core.store
      .copyDaily()
      .catch((error: unknown) => core.log.error({ error }, "the daily copy of the database failed"))
    await sleep(core.clock, everyMs, signal)
  }
}

export async function removeUnusedTemplates(core: Parts, nowMs: number): Promise<void> {
  const { templates } = core.host
  const measured = await templates.measure()
  // A directory without a row may get it back, and is worthless without its template.
  const snapshots = await core.store.snapshots.listOnHost()
  const known = [...(await core.store.sandboxes.listOnHost()), ...snapshots].map(({ id }): string => id)
  const lainOn = core.host.keptRows.templatesUnderUnknown(
    new Set([...known, ...(await core.store.sandboxes.listPooledOnHost())]),
  )
  if (lainOn === undefined) return
  // Measured first, so that a dependency added meanwhile counts.
  const needed = new Set([
    ...(await core.store.sandboxes.listTemplateIdsOnHost()),
    ...(await core.store.snapshots.listOnHost()).map(({ templateId }) => templateId),
    ...core.pool.templateIds,
    ...lainOn,
  ])
  const nextDefault = await templates.find(await templateSpec(core))
  if (nextDefault) needed.add(nextDefault.id)
  const judged = measured.map((one) => ({ ...one, isNeeded: needed.has(one.id) }))
  const budgetMib = core.settings.templateDiskMib
  for (const id of templatesToRemove(judged, { budgetMib, nowMs })) {
    // A create may have received it since it was measured.
    if (!(await templates.remove(id, { unusedForMs: templateGraceMs }))) continue
    core.events.record({ type: "template.removed", meta: { by: "daemon", template: id } })
    core.log.info({ template: id }, "removed an unused template")
  }
}

export async function removeUnusedImages(
  core: Pick<Core, "log"> & OnHost<"images" | "templates">,
): Promise<void> {
  const templates = await core.host.templates.measure()
  const needed = new Set(templates.map(({ imageHash }) => imageHash))
  for (const path of await core.host.images.removeUnused(needed)) {
    core.log.info({ path }, "removed an unused image or kernel")
  }
}
