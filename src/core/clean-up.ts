/** Now and then: copies the database, gives up templates that nothing needs when they take too much space, and images and kernels that nothing lies on. */

import { templateGraceMs, templatesToRemove } from "../rules/template-clean-up.ts"
import type { Core } from "./core.ts"
import { pause } from "./pause.ts"
import { defaultTemplateSpec } from "./template.ts"

const everyMs = 600_000

/** Runs until the signal says stop. */
export async function cleanUp(core: Core, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    try {
      await removeUnusedTemplates(core, Date.now())
      await removeUnusedImages(core)
    } catch (error) {
      core.log.error({ error }, "what nothing uses could not be removed")
    }
    await core.store
      .copyDaily()
      .catch((error: unknown) =>
        core.log.error({ error }, "the day's copy of the database could not be made"),
      )
    await pause(everyMs, signal)
  }
}

export async function removeUnusedTemplates(core: Core, nowMs: number): Promise<void> {
  const { machines } = core.host
  const measured = await machines.measureTemplates()
  // A directory without a row may get it back, and is worthless without the template below it.
  const snapshots = await core.store.snapshots.listAll()
  const known = [...(await core.store.sandboxes.listAll()), ...snapshots].map(({ id }): string => id)
  const lainOn = core.host.keptRows.templatesUnderUnknown(
    new Set([...known, ...(await core.store.sandboxes.listPooled())]),
  )
  if (lainOn === undefined) return
  // Measured first: what came to be needed meanwhile is seen as needed.
  const needed = new Set([
    ...(await core.store.sandboxes.listTemplateIds()),
    ...(await core.store.snapshots.listAll()).map(({ templateId }) => templateId),
    ...core.pool.templateIds,
    ...lainOn,
  ])
  const nextDefault = await machines.findTemplate(await defaultTemplateSpec(core))
  if (nextDefault) needed.add(nextDefault.id)
  const templates = measured.map((one) => ({ ...one, isNeeded: needed.has(one.id) }))
  const budgetMib = core.settings.templateDiskMib
  for (const id of templatesToRemove(templates, { budgetMib, nowMs })) {
    // Somebody may have been given it since it was measured.
    if (!(await machines.removeTemplate(id, { unusedForMs: templateGraceMs }))) continue
    core.events.record({ type: "template.removed", meta: { by: "daemon", template: id } })
    core.log.info({ template: id }, "removed an unused template")
  }
}

export async function removeUnusedImages(core: Core): Promise<void> {
  const templates = await core.host.machines.measureTemplates()
  const needed = new Set(templates.map(({ imageHash }) => imageHash))
  for (const path of await core.host.images.removeUnused(needed)) {
    core.log.info({ path }, "removed what no template lies on")
  }
}
