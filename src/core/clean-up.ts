/**
 * Periodic clean-up: copies the database, evicts unused templates when they take too much space, and removes unused
 * images, kernels and copies of QEMU.
 */

import { AppError } from "@bhatti/contract/errors"
import { limits } from "@bhatti/contract/limits"
import { isDiskName } from "../lib/disk-names.ts"
import {
  ownGraceMs,
  ownToRemove,
  type TemplateFacts,
  templateGraceMs,
  templatesToRemove,
} from "../rules/template-clean-up.ts"
import { removeOldSteps } from "./build/cache.ts"
import { sleep } from "./clock.ts"
import type { Core, OnHost } from "./core.ts"
import { removeUnusedDisks } from "./image-disks.ts"
import { templateSpec } from "./template.ts"

type TemplateParts = Pick<
  Core,
  "clock" | "events" | "log" | "pool" | "settings" | "store" | "templateBuilds" | "zygotes"
> &
  OnHost<"images" | "keptRows" | "templates">
type Parts = TemplateParts & Pick<Core, "pinnedDisks"> & OnHost<"machines" | "pulls" | "snapshots">

const everyMs = 600_000

/** Runs until the signal aborts. */
export async function cleanUp(core: Parts, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    try {
      await removeUnusedTemplates(core, core.clock.unixMs())
      await core.host.templates.releaseOwned({ unusedForMs: templateGraceMs })
      await removeUnusedImages(core)
      await removeOldSteps(core, core.clock.unixMs())
      await removeTemplatesOfGone(core, { unusedForMs: templateGraceMs })
      await removeUnusedDisks(core)
      await core.host.pulls.evictLayers()
      await core.store.tasks.removeOldOnHost(core.clock.unixMs())
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

export async function removeUnusedTemplates(core: TemplateParts, nowMs: number): Promise<void> {
  const judged = (await judgeTemplates(core)) ?? []
  const owners = judged.flatMap(({ owner }) => owner ?? [])
  const users = await core.store.users.existing(owners)
  const budgetMib = core.settings.templateDiskMib
  await removeTemplates(core, templatesToRemove(judged, { budgetMib, nowMs, users }), templateGraceMs)
  await countOwnTemplates(core)
  for (const owner of await core.store.templateUse.overQuota(owners)) {
    await removeAllOfOwn(core, await judgeTemplates(core), owner)
  }
}

/** Writes down how much space the templates that one account alone uses take; its quota counts it. */
export async function countOwnTemplates(
  core: Pick<Core, "store" | "templateBuilds"> & OnHost<"templates">,
): Promise<void> {
  const measured = await core.host.templates.measure()
  const building = [...core.templateBuilds.values()].flatMap(({ owner, takesMib: mib }) =>
    owner === null || mib === 0 ? [] : { id: buildId(owner), owner, mib },
  )
  await core.store.templateUse.setOnHost([
    ...measured.flatMap(({ id, owner, mib }) => (owner === null ? [] : { id, owner, mib })),
    ...building,
  ])
}

/** Stands for the one template that an account may have in the making. */
export function buildId(owner: string): string {
  return `building:${owner}`
}

/**
 * Makes room for another template of an account's own commands, or refuses it: each is up to a disk and a memory in
 * size, and nobody else uses it.
 */
export async function makeRoomForOwn(core: TemplateParts, owner: string, neededMib: number): Promise<void> {
  const nowMs = core.clock.unixMs()
  const judged = await judgeTemplates(core)
  if (!judged) {
    throw new AppError("unavailable", "the host cannot tell which templates are in use", {
      hint: "the operator's examination of the host tells the reason",
    })
  }
  const own = judged.filter((one) => one.owner === owner)
  const keptMax = limits.ownTemplatesMax
  const removed = await removeTemplates(core, ownToRemove(own, { keptMax, nowMs }), ownGraceMs)
  if (own.filter(({ isNeeded }) => !isNeeded).length - removed >= keptMax) {
    throw new AppError(
      "limit_exceeded",
      `you have ${keptMax} templates with start commands of your own that no sandbox uses`,
      { hint: `the oldest gives way when it has not been used for ${ownGraceMs / 1000} s`, retryable: true },
    )
  }
  await countOwnTemplates(core)
  try {
    await core.store.templateUse.check(owner, neededMib)
  } catch {
    await removeAllOfOwn(core, await judgeTemplates(core), owner)
    await core.store.templateUse.check(owner, neededMib)
  }
}

/** They take space of a quota that is used up, and the account cannot name them. */
async function removeAllOfOwn(
  core: TemplateParts,
  judged: TemplateFacts[] | undefined,
  owner: string,
): Promise<void> {
  const own = (judged ?? []).filter((one) => one.owner === owner)
  await removeTemplates(core, ownToRemove(own, { keptMax: 1, nowMs: core.clock.unixMs() }), ownGraceMs)
  await countOwnTemplates(core)
}

/** Templates that one account alone uses and that nothing depends on. */
export async function unneededOwnTemplates(core: TemplateParts): Promise<string[]> {
  const judged = (await judgeTemplates(core)) ?? []
  return judged.filter(({ owner, isNeeded }) => owner !== null && !isNeeded).map(({ id }) => id)
}

/** Removes templates of users' disks that no image has any more, such as of an image's former content. */
export async function removeTemplatesOfGone(
  core: TemplateParts & Pick<Core, "pinnedDisks">,
  { unusedForMs }: { unusedForMs: number },
): Promise<void> {
  const disks = (await core.host.images.list()).filter(({ name }) => isDiskName(name))
  const images = await core.store.images.listOnHost()
  const sandboxes = await core.store.sandboxes.listOnHost()
  const used = new Set([
    ...images.map(({ diskHash }) => diskHash),
    ...sandboxes.map(({ imageHash }) => imageHash),
  ])
  const gone = disks.filter(({ name, hash }) => !used.has(hash) && !core.pinnedDisks.has(name))
  if (gone.length > 0) await removeTemplatesOf(core, new Set(gone.map(({ hash }) => hash)), { unusedForMs })
}

/** Removes templates of images that are gone, if nothing depends on them. */
export async function removeTemplatesOf(
  core: TemplateParts,
  hashes: ReadonlySet<string>,
  { unusedForMs }: { unusedForMs: number } = { unusedForMs: 0 },
): Promise<void> {
  const of = (await core.host.templates.measure()).filter(({ imageHash }) => hashes.has(imageHash))
  const ids = new Set(of.map(({ id }) => id))
  await core.pool.forget(ids)
  const judged = (await judgeTemplates(core)) ?? []
  const unneeded = judged.filter(({ id, isNeeded }) => ids.has(id) && !isNeeded)
  await removeTemplates(
    core,
    unneeded.map(({ id }) => id),
    unusedForMs,
  )
}

/** Returns how many were removed. */
async function removeTemplates(core: TemplateParts, ids: string[], unusedForMs: number): Promise<number> {
  let removed = 0
  for (const id of ids) {
    // A create may have received it since it was measured.
    if (!(await core.host.templates.remove(id, { unusedForMs }))) continue
    removed++
    core.events.record({ type: "template.removed", meta: { by: "daemon", template: id } })
    core.log.info({ template: id }, "removed an unused template")
  }
  return removed
}

/** Returns each template, and whether anything depends on it; undefined while that cannot be known. */
async function judgeTemplates(core: TemplateParts): Promise<TemplateFacts[] | undefined> {
  const { templates } = core.host
  const measured = await templates.measure()
  // A directory without a row may get it back, and is worthless without its template.
  const snapshots = await core.store.snapshots.listOnHost()
  const steps = await core.store.buildCache.listOnHost()
  const known = [...(await core.store.sandboxes.listOnHost()), ...snapshots, ...steps].map(
    ({ id }): string => id,
  )
  const lainOn = core.host.keptRows.templatesUnderUnknown(
    new Set([...known, ...(await core.store.sandboxes.listPooledOnHost())]),
  )
  if (lainOn === undefined) return undefined
  // Measured first, so that a dependency added meanwhile counts.
  const needed = new Set([
    ...(await core.store.sandboxes.listTemplateIdsOnHost()),
    ...(await core.store.snapshots.listOnHost()).map(({ templateId }) => templateId),
    ...(await core.store.buildCache.listOnHost()).map(({ templateId }) => templateId),
    ...core.pool.templateIds,
    ...core.zygotes.templateIds,
    ...lainOn,
  ])
  const nextDefault = await templates.find(await templateSpec(core))
  if (nextDefault) needed.add(nextDefault.id)
  return measured.map((one) => ({ ...one, isNeeded: needed.has(one.id) }))
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
