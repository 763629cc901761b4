/**
 * Pulls an image from a registry, as a task: ask the registry, reserve space, fetch and unpack, write the row, and make
 * a template, so that the first create is fast.
 */

import { AppError } from "@bhatti/contract/errors"
import { limits } from "@bhatti/contract/limits"
import { isDiskName } from "../lib/disk-names.ts"
import { checkImageName } from "../rules/input.ts"
import { checkAllowed, nameFor, parseReference, type Reference, referenceText } from "../rules/reference.ts"
import type { ImageRecord } from "../store/images.ts"
import type { TaskRecord } from "../store/tasks.ts"
import type { Account } from "../store/users.ts"
import type { Core, ForTemplate, OnHost } from "./core.ts"
import { checkSpace } from "./create-checks.ts"
import type { MadeImage } from "./host.ts"
import { giveUpImage, pinDisk } from "./image-disks.ts"
import { unpackedMib, withImageRoom } from "./image-room.ts"
import { loginAt } from "./registry-logins.ts"
import { type RunningTask, startTask } from "./tasks.ts"
import { templateSpec } from "./template.ts"
import { ensureTemplate } from "./template-builds.ts"

export type PullInput = {
  reference: string
  name?: string | undefined
  platform?: string | undefined
  credential?: { username: string; password: string } | undefined
  /** Makes a template of the usual size at the end. */
  prepare?: boolean | undefined
}

export type ForPull = ForTemplate & Pick<Core, "pinnedDisks" | "tasks"> & OnHost<"pulls">

/** The platform of sandboxes. */
const ownPlatform = "linux/amd64"
const mebibyte = 1024 * 1024

/** Returns the task, or the image if it is here and its reference pins it by digest. */
export async function pullImage(
  core: ForPull,
  account: Account,
  input: PullInput,
): Promise<{ task: TaskRecord } | { image: ImageRecord }> {
  const { defaultRegistry, allowedRegistries } = core.settings.images
  const reference = parseReference(input.reference, defaultRegistry)
  checkAllowed(reference.host, allowedRegistries)
  const platform = input.platform ?? ownPlatform
  if (platform !== ownPlatform)
    throw new AppError("invalid", `sandboxes are ${ownPlatform}, an image for ${platform} cannot run`, {
      reason: "wrong_platform",
    })
  const name = input.name ?? nameFor(reference, defaultRegistry)
  await checkNewName(core, name)
  const existing = await pinnedImage(core, account, name, reference)
  if (existing) return { image: existing }
  await checkSpace(core)
  const credential = input.credential ?? (await loginAt(core, account, reference.host))
  const asked = { ...reference, platform, credential, owner: account.id }
  const task = await startTask(core, account, { kind: "image.pull", subject: name }, async (task) => {
    try {
      const image = await pull(core, account, { ...asked, name, reference }, task)
      await prepareImage(core, image, input.prepare ?? true, task)
      core.events.record({
        type: "image.pulled",
        userId: account.id,
        meta: { by: "user", image: name, digest: image.manifestDigest },
      })
      return { image: name, id: image.id, digest: image.manifestDigest ?? "" }
    } catch (error) {
      await giveUpImage(core, task, { type: "image.pull_failed", userId: account.id, image: name })
      throw error
    }
  })
  return { task }
}

/** A name of its own kind: neither an id, nor a name of the host's files, nor of an image of the host. */
export async function checkNewName(core: OnHost<"images">, name: string): Promise<void> {
  checkImageName(name)
  if (isDiskName(name)) throw new AppError("invalid", limits.imageNameIsIdRule)
  if (!(await core.host.images.list()).some((image) => image.name === name)) return
  throw new AppError("conflict", `the host has an image named "${name}"`, {
    hint: "choose another name",
    subject: { kind: "image", name },
  })
}

async function pinnedImage(
  core: Pick<Core, "store"> & OnHost<"pulls">,
  account: Account,
  name: string,
  { digest, host, repository }: Reference,
): Promise<ImageRecord | undefined> {
  if (digest === null) return undefined
  const found = await core.store.images.findOwn(account.id, name)
  const isSame =
    found?.name === name &&
    [found.indexDigest, found.manifestDigest].includes(digest) &&
    found.reference?.startsWith(`${host}/${repository}`)
  return isSame && (await core.host.pulls.find(found.diskName)) ? found : undefined
}

/** For a build that begins with an image which is not here. */
export async function pullForBuild(
  core: ForPull,
  account: Account,
  text: string,
  task: RunningTask,
): Promise<ImageRecord> {
  const { defaultRegistry, allowedRegistries } = core.settings.images
  const reference = parseReference(text, defaultRegistry)
  checkAllowed(reference.host, allowedRegistries)
  const name = nameFor(reference, defaultRegistry)
  await checkNewName(core, name)
  const credential = await loginAt(core, account, reference.host)
  const asked = { ...reference, platform: ownPlatform, credential, owner: account.id, name, reference }
  const image = await pull(core, account, asked, task)
  await core.store.images.setReady(image.id)
  return image
}

type Asked = Parameters<Core["host"]["pulls"]["resolve"]>[0] & { name: string; reference: Reference }

async function pull(core: ForPull, account: Account, asked: Asked, task: RunningTask): Promise<ImageRecord> {
  const { signal } = task
  task.progress({ step: "resolving", layers: [] })
  const found = await core.host.pulls.resolve(asked, signal)
  const { diskName, indexDigest, manifestDigest, layers } = found.resolved
  using _pin = pinDisk(core, diskName)
  const bytes = layers.reduce((sum, { size }) => sum + size, 0)
  const room = {
    ...{ name: asked.name, estimateMib: unpackedMib(bytes), leastMib: Math.ceil(bytes / mebibyte) },
  }
  const made =
    (await core.host.pulls.find(diskName)) ??
    (await withImageRoom(core, task, room, (bytesMax) =>
      core.host.pulls.make(asked, found, {
        ...{ bytesMax, signal },
        onProgress: ({ step, layers }) => task.progress({ step, layers }),
      }),
    ))
  signal.throwIfAborted()
  return await core.store.images.put(
    account.id,
    {
      ...contentOf(made),
      name: asked.name,
      reference: referenceText(asked.reference),
      indexDigest,
      manifestDigest,
      platform: asked.platform,
    },
    { taskId: task.record.id },
  )
}

export function contentOf({ diskName, hash, diskMib, bytes, config }: MadeImage) {
  return { diskName, diskHash: hash, diskMib, bytes, config }
}

/**
 * The image works before that; a template that cannot be made is the image's own failure, and the image stays. A cancel
 * comes too late: the task ends as done.
 */
export async function prepareImage(
  core: ForTemplate,
  image: ImageRecord,
  isAsked: boolean,
  task: RunningTask,
): Promise<void> {
  try {
    if (!isAsked) return
    task.progress({ step: "preparing", layers: [] })
    const spec = await templateSpec(core, {
      image: image.diskName,
      cpus: limits.cpusDefault,
      memoryMib: limits.memoryMibDefault,
    })
    // The next create is quick too, as with an image of the host.
    core.pool.expects(spec, await ensureTemplate(core, spec, task.signal))
  } catch (error) {
    if (!task.signal.aborted) throw error
  } finally {
    await core.store.images.setReady(image.id)
  }
}
