/**
 * Makes an image of an archive that its user sends, as a task that begins when all of it is here. It
 * replaces the user's image of that name; sandboxes of that one keep its disk.
 */

import type { TaskRecord } from "../store/tasks.ts"
import type { Account } from "../store/users.ts"
import { checkSpace } from "./create-checks.ts"
import type { ImportedArchive } from "./host.ts"
import { giveUpImage, pinDisk } from "./image-disks.ts"
import { unpackedMib, withImageRoom, withinQuota } from "./image-room.ts"
import { checkNewName, contentOf, type ForPull, prepareImage } from "./pull.ts"
import { type RunningTask, startTask } from "./tasks.ts"

export type ImportInput = { name: string; prepare: boolean; bytes: AsyncIterable<Uint8Array> }

const mebibyte = 1024 * 1024

export async function importImage(core: ForPull, account: Account, input: ImportInput): Promise<TaskRecord> {
  const { name } = input
  await checkNewName(core, name)
  await checkSpace(core)
  // Before the first byte: a user who may have no task sends nothing.
  const record = await core.store.tasks.add(account.id, { kind: "image.import", subject: name })
  await using undo = new AsyncDisposableStack()
  undo.defer(() => core.store.tasks.remove(record.id))
  const bytesMax = core.settings.images.imageMibMax * mebibyte
  const bytes = withinQuota(core, record, input.bytes)
  const archive = undo.use(await core.host.pulls.receive(bytes, { bytesMax }))
  const task = await startTask(core, account, { record }, async (task) => {
    await using _archive = archive
    try {
      return await makeImage(core, account, { ...input, archive }, task)
    } catch (error) {
      await giveUpImage(core, task, { type: "image.import_failed", userId: account.id, image: name })
      throw error
    }
  })
  undo.move()
  return task
}

async function makeImage(
  core: ForPull,
  account: Account,
  { archive, name, prepare }: ImportInput & { archive: ImportedArchive },
  task: RunningTask,
): Promise<Record<string, string>> {
  const { signal } = task
  const estimateMib = unpackedMib(archive.bytes)
  using pins = new DisposableStack()
  const { made, manifestDigest } = await withImageRoom(
    core,
    task,
    { name, estimateMib },
    async (bytesMax) => {
      task.progress({ step: "reading", layers: [] })
      const opened = await core.host.pulls.openArchive(archive, { origin: account.id, bytesMax, signal })
      pins.use(pinDisk(core, opened.diskName))
      const made = await core.host.pulls.import(archive, {
        ...{ opened, bytesMax, signal },
        onProgress: ({ step, layers }) => task.progress({ step, layers }),
      })
      return { made, manifestDigest: opened.manifestDigest }
    },
  )
  signal.throwIfAborted()
  const former = await core.store.images.findOwn(account.id, name)
  if (former) task.progress({ step: "replacing", layers: [] })
  const image = await core.store.images.put(
    account.id,
    {
      ...contentOf(made),
      ...{ name, reference: null, indexDigest: null, manifestDigest, platform: "linux/amd64" },
    },
    { taskId: task.record.id },
  )
  await prepareImage(core, image, prepare, task)
  core.events.record({
    type: "image.imported",
    userId: account.id,
    meta: { by: "user", image: name, digest: manifestDigest },
  })
  const replaced = former && { replaced: former.manifestDigest ?? former.id }
  return { image: name, id: image.id, digest: manifestDigest, ...replaced }
}
