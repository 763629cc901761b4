/** Disks of users' images: removed when no row, template or task needs them. */

import type { Core, OnHost } from "./core.ts"
import type { NewEvent } from "./events.ts"

type Parts = Pick<Core, "log" | "pinnedDisks" | "store"> & OnHost<"pulls" | "templates">

/** Keeps a disk from the moment a task relies on it until its row does. */
export function pinDisk(core: Pick<Core, "pinnedDisks">, diskName: string): Disposable {
  const { pinnedDisks } = core
  pinnedDisks.set(diskName, (pinnedDisks.get(diskName) ?? 0) + 1)
  return {
    [Symbol.dispose]() {
      const left = (pinnedDisks.get(diskName) ?? 1) - 1
      if (left > 0) pinnedDisks.set(diskName, left)
      else pinnedDisks.delete(diskName)
    },
  }
}

export async function removeUnusedDisks(core: Parts): Promise<void> {
  const needed = await neededHashes(core)
  const isNeeded = async ({ name, hash }: { name: string; hash: string }) => {
    if (needed.has(hash) || core.pinnedDisks.has(name)) return true
    // Asked again: a pull may have found the disk, and an image may have got a copy, since the first answer.
    return (await neededHashes(core)).has(hash) || core.pinnedDisks.has(name)
  }
  for (const name of await core.host.pulls.removeUnused(isNeeded))
    core.log.info({ image: name }, "removed the disk of an image that nothing needs")
}

/** Ends a task that was to make an image: a failure is told, and a disk that got no image counts for nobody. */
export async function giveUpImage(
  core: Parts & Pick<Core, "events">,
  { signal }: { signal: AbortSignal },
  { image, ...about }: Omit<NewEvent, "meta"> & { image: string },
): Promise<void> {
  if (!signal.aborted) core.events.record({ ...about, meta: { by: "user", image } })
  await removeUnusedDisks(core).catch((error: unknown) =>
    core.log.error({ error }, "the disk of a failed image was not removed"),
  )
}

async function neededHashes(core: Parts): Promise<Set<string>> {
  // Templates first: a row that is removed meanwhile has its template still.
  const templates = await core.host.templates.measure()
  const rows = await core.store.images.listOnHost()
  return new Set([...templates.map(({ imageHash }) => imageHash), ...rows.map(({ diskHash }) => diskHash)])
}

/** When a daemon starts: nothing half made stays, and its tasks are told as interrupted. */
export async function reconcileImages(core: Parts): Promise<void> {
  const interrupted = await core.store.tasks.interruptOnHost()
  if (interrupted > 0)
    core.log.warn({ tasks: interrupted }, "tasks were interrupted by the end of the daemon")
  await core.store.images.setAllReadyOnHost()
  await core.host.pulls.removeUnfinished()
  await removeUnusedDisks(core)
}
