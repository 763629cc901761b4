/**
 * Builds an image of a Dockerfile, as a task: everything is read and checked first, then the stages' disks are made,
 * and the last one becomes the image's.
 */

import { AppError } from "@bhatti/contract/errors"
import type { ImageConfig } from "@bhatti/contract/image-config"
import { limits } from "@bhatti/contract/limits"
import { diskNameOf } from "../../lib/disk-names.ts"
import { parseDockerfile } from "../../rules/dockerfile/parse.ts"
import { proxyOf, targetOf, unusedArguments } from "../../rules/dockerfile/plan.ts"
import type { TaskProgress, TaskRecord } from "../../store/tasks.ts"
import type { Account } from "../../store/users.ts"
import { checkSizeLimits, checkSpace } from "../create-checks.ts"
import type { BuildContext, Image, ImagePrograms, MadeImage } from "../host.ts"
import { giveUpImage, pinDisk } from "../image-disks.ts"
import { findImage } from "../images.ts"
import { checkNewName, contentOf, prepareImage, pullForBuild } from "../pull.ts"
import { type RunningTask, startTask } from "../tasks.ts"
import { Execution } from "./execution.ts"
import type { ForBuild } from "./for-build.ts"
import { BuildOutput } from "./output.ts"
import { emptyRoot } from "./scratch.ts"
import { digestOf, type ReadyStage, readyStages } from "./stages.ts"

export type BuildInput = {
  name: string
  dockerfile: string
  args: Readonly<Record<string, string>>
  secrets: Readonly<Record<string, string>>
  target: string | null
  usesCache: boolean
  prepare: boolean
  cpus?: number | undefined
  memoryMib?: number | undefined
  /** The directory, as a tar archive. */
  context: AsyncIterable<Uint8Array>
}

const mebibyte = 1024 * 1024
const startLabel = "sh.bhatti.start"
const readyLabel = "sh.bhatti.ready"

export async function buildImage(core: ForBuild, account: Account, input: BuildInput): Promise<TaskRecord> {
  const { name } = input
  await checkNewName(core, name)
  const size = {
    cpus: input.cpus ?? limits.cpusDefault,
    memoryMib: input.memoryMib ?? limits.memoryMibDefault,
  }
  checkSizeLimits(account, size)
  // Before the first byte of the directory: a bad file, and a user who may have no task, send nothing.
  const file = parseDockerfile(input.dockerfile)
  const target = targetOf(file, input.target)
  await checkSpace(core)
  const leftMib = await core.store.tasks.leftMib(account.id)
  await using undo = new AsyncDisposableStack()
  const bytesMax = Math.min(core.settings.images.imageMibMax, leftMib) * mebibyte
  const context = undo.use(await core.host.buildContexts.receive(input.context, { bytesMax }))
  const task = await startTask(core, account, { kind: "image.build", subject: name }, async (task) => {
    await using _context = context
    try {
      return await build(core, account, { ...input, size, file, target, directory: context }, task)
    } catch (error) {
      await giveUpImage(core, task, { type: "image.build_failed", userId: account.id, image: name })
      throw error
    }
  })
  undo.move()
  return task
}

type Asked = Omit<BuildInput, "context" | "target"> & {
  file: ReturnType<typeof parseDockerfile>
  target: number
  size: { cpus: number; memoryMib: number }
  directory: BuildContext
}

async function build(
  core: ForBuild,
  account: Account,
  asked: Asked,
  task: RunningTask,
): Promise<Record<string, string>> {
  const { name, file, args, secrets, size, directory: context } = asked
  const { signal } = task
  let step = "reading"
  let printed = { start: 0, text: "" }
  const tell = () => task.progress({ step, layers: [], output: printed })
  const output = new BuildOutput((now) => {
    printed = now
    tell()
  })
  // Other parts of the work tell their progress without what was printed.
  const telling = {
    ...task,
    progress: (progress: TaskProgress) => task.progress({ ...progress, output: printed }),
  }
  const onStep = (text: string) => {
    step = text
    tell()
  }
  await core.store.tasks.reserve(task.record, Math.ceil(context.bytes / mebibyte))
  const { stages, ignored } = await readyStages({
    ...{ file, target: asked.target, args, secrets, context, size },
    findImage: (image) => imageOf(core, account, image, telling),
  })
  for (const line of ignored) output.line(line)
  for (const arg of unusedArguments(file, args)) output.line(`build argument ${arg} is not used`)
  const stage = stages.get(`stage:${asked.target}`)
  if (!stage) throw new Error("the build has no last stage")
  const resultKey = digestOf([stage.key, stage.config])
  const execution = { taskId: task.record.id, stages, context, secrets, size, output, onStep, signal }
  const made = await madeOf(core, account, { ...asked, stage, resultKey }, async (diskName) => {
    await using running = new Execution(core, account, {
      ...execution,
      ambient: proxyOf(args),
      usesCache: asked.usesCache,
    })
    const disk = await running.diskOf(stage)
    onStep("writing")
    return await core.host.pulls.makeOf(disk, {
      ...{ diskName, config: stage.config, programs: programsOf(stage.config), signal },
    })
  })
  using _pin = made.pin
  if (made.isCached) output.line("all steps are cached")
  signal.throwIfAborted()
  const manifestDigest = `sha256:${digestOf([made.image.diskName, made.image.hash])}`
  const image = await core.store.images.put(
    account.id,
    {
      ...contentOf(made.image),
      ...{ name, reference: null, indexDigest: null, manifestDigest, platform: "linux/amd64" },
    },
    { taskId: task.record.id },
  )
  await core.store.buildCache.putResult(account.id, resultKey, made.image.diskName)
  await prepareImage(core, image, asked.prepare, telling)
  const meta = { by: "user", image: name, digest: manifestDigest }
  core.events.record({ type: "image.built", userId: account.id, meta })
  return { image: name, id: image.id, digest: manifestDigest }
}

/** Labels name programs that run already in each sandbox of the image. */
function programsOf({ labels }: ImageConfig): ImagePrograms | undefined {
  const { [startLabel]: start, [readyLabel]: ready = "true" } = labels
  return start === undefined ? undefined : { start, ready }
}

/** The disk of an earlier build with the same steps and configuration, or a new one. */
async function madeOf(
  core: ForBuild,
  account: Account,
  { usesCache, resultKey }: { usesCache: boolean; resultKey: string; stage: ReadyStage },
  make: (diskName: string) => Promise<MadeImage>,
): Promise<{ image: MadeImage; pin: Disposable; isCached: boolean }> {
  const known = usesCache ? await core.store.buildCache.findResult(account.id, resultKey) : undefined
  if (known !== undefined) {
    const pin = pinDisk(core, known)
    const image = await core.host.pulls.find(known)
    if (image) return { image, pin, isCached: true }
    pin[Symbol.dispose]()
  }
  const diskName = diskNameOf(account.id, `build ${resultKey} ${crypto.randomUUID()}`)
  const pin = pinDisk(core, diskName)
  try {
    return { image: await make(diskName), pin, isCached: false }
  } catch (error) {
    pin[Symbol.dispose]()
    throw error
  }
}

/** An image of the user or of the host, else one that is pulled. */
async function imageOf(core: ForBuild, account: Account, name: string, task: RunningTask): Promise<Image> {
  if (name === "scratch") return await emptyRoot(core, task.signal)
  const missing: unknown[] = []
  try {
    return await core.host.images.readImage((await findImage(core, account, name)).diskName)
  } catch (error) {
    if (!(error instanceof AppError) || error.code !== "not_found") throw error
    missing.push(error)
  }
  const record = await pullForBuild(core, account, name, task).catch((error: unknown) => {
    // Not a name that a registry could be asked for.
    if (error instanceof AppError && error.code === "invalid") throw missing[0]
    throw error
  })
  return await core.host.images.readImage(record.diskName)
}
