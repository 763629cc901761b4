/** An image on its way out of this host: as an archive that its caller reads, or to a registry as a task. */

import { AppError } from "@bhatti/contract/errors"
import { checkAllowed, parseReference, referenceText } from "../rules/reference.ts"
import type { TaskRecord } from "../store/tasks.ts"
import type { Account } from "../store/users.ts"
import type { Core, OnHost } from "./core.ts"
import { checkSpace } from "./create-checks.ts"
import type { FinishedImage } from "./host.ts"
import { pinDisk } from "./image-disks.ts"
import { findImage } from "./images.ts"
import { loginAt } from "./registry-logins.ts"
import { ownConfig } from "./save-image.ts"
import { startTask } from "./tasks.ts"

type Parts = Pick<Core, "clock" | "events" | "log" | "pinnedDisks" | "settings" | "store" | "tasks"> &
  OnHost<"disks" | "images" | "packs">

export type PushInput = {
  reference: string
  credential?: { username: string; password: string } | undefined
}

/** Resolves once the image was found; its bytes come when its layer is made, which takes seconds. */
export async function exportImage(
  core: Parts,
  account: Account,
  nameOrId: string,
  signal: AbortSignal,
): Promise<AsyncIterable<Uint8Array>> {
  const { image, id, shownAs, usedMib } = await findFinished(core, account, nameOrId)
  // Until the work has a pin of its own.
  using _found = pinDisk(core, image.name)
  await checkSpace(core, usedMib)
  return (async function* () {
    using _pin = pinDisk(core, image.name)
    yield* core.host.packs.export(image, { owner: account.id, shownAs, signal })
    core.events.record({
      type: "image.exported",
      userId: account.id,
      meta: { by: "user", image: shownAs, ...(id !== "" && { id }) },
    })
  })()
}

/** Returns the task that pushes it. */
export async function pushImage(
  core: Parts,
  account: Account,
  nameOrId: string,
  input: PushInput,
): Promise<TaskRecord> {
  const { defaultRegistry, allowedRegistries } = core.settings.images
  const reference = parseReference(input.reference, defaultRegistry)
  checkAllowed(reference.host, allowedRegistries)
  if (reference.digest !== null)
    throw new AppError("invalid", "a push names a tag: the registry gives the digest", {
      hint: "write HOST/REPOSITORY:TAG",
      reason: "bad_reference",
    })
  const { image, id, shownAs, usedMib } = await findFinished(core, account, nameOrId)
  // Until the work has a pin of its own.
  using _found = pinDisk(core, image.name)
  await checkSpace(core, usedMib)
  const credential = input.credential ?? (await loginAt(core, account, reference.host))
  const to = { ...reference, credential, owner: account.id }
  return await startTask(core, account, { kind: "image.push", subject: shownAs }, async (task) => {
    using _pin = pinDisk(core, image.name)
    const told = { by: "user", image: shownAs, reference: referenceText(reference) }
    try {
      const { digest } = await core.host.packs.push(image, to, {
        signal: task.signal,
        onProgress: ({ step, layers }) => task.progress({ step, layers }),
      })
      core.events.record({ type: "image.pushed", userId: account.id, meta: { ...told, digest } })
      return { image: shownAs, id, digest }
    } catch (error) {
      if (!task.signal.aborted)
        core.events.record({ type: "image.push_failed", userId: account.id, meta: told })
      throw error
    }
  })
}

type Found = { image: FinishedImage; id: string; shownAs: string; usedMib: number }

async function findFinished(core: Parts, account: Account, nameOrId: string): Promise<Found> {
  const { diskName, record } = await findImage(core, account, nameOrId)
  if (record) {
    const { diskHash: hash, diskMib, config, id, name, bytes } = record
    const image = { name: diskName, hash, diskMib, config }
    return { image, id, shownAs: name, usedMib: Math.ceil(bytes / 1024 / 1024) }
  }
  const { name, hash, diskMib, config = ownConfig } = await core.host.images.readImage(diskName)
  const usedMib = (await core.host.images.list()).find((one) => one.name === name)?.usedMib ?? 0
  return { image: { name, hash, diskMib, config }, id: "", shownAs: name, usedMib }
}
