/**
 * Images that the host makes itself, of Debian's packages: installed when the first user wants one, and then there for
 * everybody. Builds are the host's own and shared by those who wait.
 */

import { AppError } from "@bhatti/contract/errors"
import { limits } from "@bhatti/contract/limits"
import { suggest } from "../lib/suggest.ts"
import type { TaskRecord } from "../store/tasks.ts"
import type { Account } from "../store/users.ts"
import type { Core, ForTemplate, OnHost } from "./core.ts"
import { checkSpace } from "./create-checks.ts"
import type { HostImageBuild } from "./parts.ts"
import { type RunningTask, startTask } from "./tasks.ts"
import { templateSpec } from "./template.ts"
import { ensureTemplate } from "./template-builds.ts"
import { unlessAborted } from "./unless-aborted.ts"

/** The largest takes 1.2 GB, and twice that while it is made. */
const neededMib = 3072

export type HostImageState = { name: string; summary: string; isInstalled: boolean; isInstallable: boolean }

type ForInstall = ForTemplate & Pick<Core, "hostImageBuilds" | "tasks">

export async function listHostImages(
  core: Pick<Core, "settings"> & OnHost<"images">,
): Promise<HostImageState[]> {
  const installed = new Set((await core.host.images.list()).map(({ name }) => name))
  const isInstallable = core.settings.images.areMadeAtNeed
  return core.host.images.recipes.map((recipe) => ({
    ...recipe,
    isInstalled: installed.has(recipe.name),
    isInstallable,
  }))
}

/** Returns the task; undefined: it is installed. An installed image is kept up to date by the operator alone. */
export async function installHostImage(
  core: ForInstall,
  account: Account,
  name: string,
): Promise<{ task: TaskRecord | undefined }> {
  const images = await listHostImages(core)
  const found = images.find((image) => image.name === name)
  if (!found) {
    const similar = suggest(
      name,
      images.map((image) => image.name),
    )
    throw new AppError("not_found", `the host makes no image named "${name}"`, {
      hint: similar && `did you mean ${similar}?`,
      subject: { kind: "image", name },
    })
  }
  if (found.isInstalled) return { task: undefined }
  if (!found.isInstallable)
    throw new AppError(
      "forbidden",
      `image "${name}" is not installed, and only the host's operator installs images`,
      {
        hint: "ask the operator for it",
        subject: { kind: "image", name },
      },
    )
  await checkSpace(core, neededMib)
  const task = await startTask(core, account, { kind: "image.install", subject: name }, async (task) => {
    await install(core, account, name, task)
    await prepare(core, name, task)
    return { image: name, id: "", digest: "" }
  })
  return { task }
}

async function install(core: ForInstall, account: Account, name: string, task: RunningTask): Promise<void> {
  let build = core.hostImageBuilds.get(name)
  // A build whose last task was cancelled ends first.
  while (build?.stop.signal.aborted) {
    await unlessAborted(build.done, task.signal).catch(() => task.signal.throwIfAborted())
    build = core.hostImageBuilds.get(name)
  }
  build ??= begin(core, account, name)
  const show = (words: string) =>
    task.progress({ step: words === "" ? "building" : `building: ${words}`, layers: [] })
  build.watchers.add(show)
  show(build.words)
  try {
    await unlessAborted(build.done, task.signal)
  } finally {
    build.watchers.delete(show)
    if (build.watchers.size === 0) {
      build.stop.abort(task.signal.reason)
      // When the task ends it has left nothing.
      await build.done.catch(() => undefined)
    }
  }
}

function begin(core: ForInstall, account: Account, name: string): HostImageBuild {
  const stop = new AbortController()
  const about = { userId: account.id, meta: { by: "user", image: name } }
  const onStep = (words: string) => {
    build.words = words
    for (const watcher of build.watchers) watcher(words)
  }
  const work = async () => {
    try {
      await core.host.images.install(name, { signal: stop.signal, onStep })
      core.events.record({ type: "image.installed", ...about })
    } catch (error) {
      if (!stop.signal.aborted) core.events.record({ type: "image.install_failed", ...about })
      throw error
    } finally {
      core.hostImageBuilds.delete(name)
    }
  }
  const build: HostImageBuild = { words: "", watchers: new Set(), stop, done: Promise.resolve() }
  core.hostImageBuilds.set(name, build)
  build.done = work()
  build.done.catch(() => undefined)
  return build
}

/** The first create of the usual size is fast then. The image is installed whatever becomes of it. */
async function prepare(core: ForTemplate, name: string, task: RunningTask): Promise<void> {
  task.progress({ step: "preparing", layers: [] })
  const size = { cpus: limits.cpusDefault, memoryMib: limits.memoryMibDefault }
  await ensureTemplate(core, await templateSpec(core, { image: name, ...size }), task.signal)
}
