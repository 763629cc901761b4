/** Changes of images that exist: another name, removal, sharing. */

import { AppError } from "@bhatti/contract/errors"
import type { ImageRecord } from "../store/images.ts"
import type { Account } from "../store/users.ts"
import { removeTemplatesOf, removeTemplatesOfGone } from "./clean-up.ts"
import type { Core, OnHost } from "./core.ts"
import { removeUnusedDisks } from "./image-disks.ts"
import { findImage, findOwnImage, noImage } from "./images.ts"
import { checkNewName } from "./pull.ts"

type Parts = Pick<
  Core,
  "clock" | "events" | "log" | "pinnedDisks" | "pool" | "settings" | "store" | "templateBuilds" | "zygotes"
> &
  OnHost<"images" | "keptRows" | "pulls" | "templates">

/** Gives an image, also one that is shared with the account, a further name as an image of the account's own. */
export async function tagImage(
  core: Parts,
  account: Account,
  nameOrId: string,
  newName: string,
): Promise<ImageRecord> {
  const { record } = await findImage(core, account, nameOrId)
  if (!record) {
    const isThere = (await core.host.images.list()).some(({ name }) => name === nameOrId)
    if (!isThere) throw await noImage(core, account, nameOrId)
    throw new AppError("invalid", `image "${nameOrId}" belongs to the host and keeps its name`, {
      subject: { kind: "image", name: nameOrId },
    })
  }
  await checkNewName(core, newName)
  const copy = await core.store.images.copy(account.id, record, newName)
  await core.store.images.setReady(copy.id)
  const meta = { by: "user", image: newName, from: record.name }
  core.events.record({ type: "image.tagged", userId: account.id, meta })
  return { ...copy, state: "ready" }
}

/** Refused while a sandbox or a named snapshot was made from it; templates of it go with it. */
export async function deleteImage(core: Parts, account: Account, nameOrId: string): Promise<void> {
  const record = await findOwnImage(core, account, nameOrId)
  if (!(await core.store.images.remove(record.id))) throw await inUse(core, account, record)
  core.events.record({ type: "image.deleted", userId: account.id, meta: { by: "user", image: record.name } })
  await removeRemains(core, [record])
}

/**
 * Removes the account's images that no sandbox and no snapshot was made from, and disks that images had before; returns
 * the images.
 */
export async function pruneImages(core: Parts, account: Account): Promise<ImageRecord[]> {
  const removed: ImageRecord[] = []
  for (const record of await core.store.images.listOf(account.id)) {
    if (!(await core.store.images.remove(record.id))) continue
    core.events.record({
      type: "image.deleted",
      userId: account.id,
      meta: { by: "user", image: record.name },
    })
    removed.push(record)
  }
  await removeTemplatesOfGone(core, { unusedForMs: 0 })
  await removeUnusedDisks(core)
  return removed
}

async function removeRemains(core: Parts, records: readonly ImageRecord[]): Promise<void> {
  const used = new Set((await core.store.images.listOnHost()).map(({ diskHash }) => diskHash))
  const unused = new Set(records.map(({ diskHash }) => diskHash).filter((hash) => !used.has(hash)))
  if (unused.size === 0) return
  await removeTemplatesOf(core, unused)
  await removeUnusedDisks(core)
}

/** Other users' sandboxes are counted, not named. */
async function inUse(core: Parts, account: Account, { id, name }: ImageRecord): Promise<AppError> {
  const all = await core.store.images.dependants(id)
  const own = all.filter(({ userId }) => userId === account.id).map(({ kind, name }) => `${kind} ${name}`)
  const others = all.length - own.length
  const words = [
    ...own.slice(0, 5),
    ...(own.length > 5 ? [`${own.length - 5} more of yours`] : []),
    ...(others > 0 ? [`${others} of other users`] : []),
  ]
  return new AppError("conflict", `image "${name}" is needed by ${words.join(", ")}`, {
    hint: "remove those first",
    reason: "image_in_use",
    subject: { kind: "image", name },
  })
}
