/**
 * Makes an image of a sandbox, as a task: its files without its identity, as a disk of their own. The sandbox runs on.
 */

import type { ImageConfig } from "@bhatti/contract/image-config"
import type { ImageRecord } from "../store/images.ts"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { TaskRecord } from "../store/tasks.ts"
import type { Account } from "../store/users.ts"
import { captureDisk, checkCopyable } from "./capture.ts"
import type { ForRequest, OnHost } from "./core.ts"
import { checkSpace } from "./create-checks.ts"
import { findSandbox } from "./find.ts"
import { abandonDraft } from "./fork.ts"
import type { PackedAbout } from "./host.ts"
import { giveUpImage, pinDisk } from "./image-disks.ts"
import { withImageRoom } from "./image-room.ts"
import { templateOf } from "./machine-of.ts"
import { checkPermitted } from "./permitted.ts"
import { checkNewName, contentOf, type ForPull, prepareImage } from "./pull.ts"
import { type RunningTask, startTask } from "./tasks.ts"

export type ConfigChanges = {
  [Name in "user" | "workdir" | "env" | "entrypoint" | "cmd"]?: ImageConfig[Name] | undefined
}

export type SaveInput = {
  name: string
  /** Replaces parts of the configuration of the image that the sandbox was made from. */
  config?: ConfigChanges | undefined
  /** Makes a template of the usual size at the end. */
  prepare?: boolean | undefined
}

export type ForSave = ForPull & ForRequest & OnHost<"packs" | "snapshots">

/** How commands run in images of our own, which have no configuration. */
export const ownConfig: ImageConfig = {
  user: "lohar",
  workdir: "/workspace",
  env: {
    PATH: "/home/lohar/.local/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    LANG: "C.UTF-8",
  },
  ...{ entrypoint: [], cmd: [], ports: [], labels: {} },
}

export async function saveImage(
  core: ForSave,
  account: Account,
  nameOrId: string,
  input: SaveInput,
): Promise<TaskRecord> {
  const { name } = input
  await checkNewName(core, name)
  const source = await findSandbox(core, account, nameOrId)
  // An image can be exported, and read elsewhere.
  checkPermitted(account, "files")
  checkCopyable(source)
  await checkSpace(core, await core.host.disks.measureMib(source.id, "overlay"))
  return await startTask(core, account, { kind: "image.save", subject: name }, async (task) => {
    try {
      const about = aboutOf(source, input.config ?? {})
      const image = await makeImageOf(core, account, source, { name, about }, task)
      await prepareImage(core, image, input.prepare ?? true, task)
      const digest = image.manifestDigest ?? ""
      core.events.record({
        type: "image.saved",
        userId: account.id,
        sandbox: source,
        meta: { by: "user", image: name, digest },
      })
      return { image: name, id: image.id, digest }
    } catch (error) {
      await giveUpImage(core, task, {
        type: "image.save_failed",
        userId: account.id,
        sandbox: source,
        image: name,
      })
      throw error
    }
  })
}

/** Makes an image of a sandbox's disk, and its row. A destroy of the sandbox ends it, as a cancel of the task does. */
export async function makeImageOf(
  core: ForSave,
  account: Account,
  source: SandboxRecord,
  { name, about }: { name: string; about: PackedAbout },
  task: RunningTask,
): Promise<ImageRecord> {
  const draft = `save-${crypto.randomUUID()}`
  await using undo = new AsyncDisposableStack()
  undo.defer(() => abandonDraft(core, draft))
  const { packs } = core.host
  task.progress({ step: "copying", layers: [] })
  const estimateMib = await sizeMibOf(core, source)
  return await withImageRoom(core, task, { name, estimateMib }, async (bytesMax) => {
    await using packed = await core.destroying.watch([source], async (destroyed) => {
      const signal = AbortSignal.any([task.signal, destroyed])
      await captureDisk(core, source, draft, { signal })
      task.progress({ step: "packing", layers: [] })
      const disk = { template: await templateOf(core, source), copy: { id: draft, isDraft: true } }
      const options = { origin: account.id, bytesMax, signal }
      return await packs.pack({ disk, diskMib: source.diskMib }, about, options)
    })
    await abandonDraft(core, draft)
    using _pin = pinDisk(core, packed.diskName)
    const made = await packs.make(packed, {
      ...{ bytesMax, signal: task.signal },
      onProgress: ({ step, layers }) => task.progress({ step, layers }),
    })
    task.signal.throwIfAborted()
    const { manifestDigest } = packed
    const place = { reference: null, indexDigest: null, manifestDigest, platform: "linux/amd64" }
    const content = { ...contentOf(made), name, ...place }
    return await core.store.images.put(account.id, content, { taskId: task.record.id })
  })
}

export function aboutOf(source: SandboxRecord, changes: ConfigChanges): PackedAbout {
  const before = source.imageConfig ?? ownConfig
  const { startCommand: start, readyCommand: ready, services, initSystem } = source
  return {
    config: {
      ...before,
      user: changes.user ?? before.user,
      workdir: changes.workdir ?? before.workdir,
      env: { ...before.env, ...changes.env },
      entrypoint: changes.entrypoint ?? before.entrypoint,
      // The former words were for the former program.
      cmd: changes.cmd ?? (changes.entrypoint ? [] : before.cmd),
    },
    ...{ services, initSystem },
    programs: start !== null && ready !== null ? { start, ready } : undefined,
  }
}

/** An upper limit for most: the image's files, and what the sandbox has written. */
async function sizeMibOf(core: OnHost<"disks" | "images">, source: SandboxRecord): Promise<number> {
  const image = (await core.host.images.list()).find(({ name }) => name === source.imageName)
  return (image?.usedMib ?? 0) + Math.ceil(await core.host.disks.measureMib(source.id, "overlay"))
}
