/**
 * Templates in the making. Concurrent creates share a build. A template with a user's own start command runs that
 * user's code, so an account has one such build at a time, and it ends when its last create has left. The builds are
 * this host's, and so is the memory that they take.
 */

import { AppError } from "@bhatti/contract/errors"
import { buildId, countOwnTemplates, makeRoomForOwn } from "./clean-up.ts"
import type { Core, ForTemplate } from "./core.ts"
import type { Template, TemplateSpec } from "./host.ts"
import type { TemplateBuild } from "./parts.ts"
import { makeTemplate } from "./template.ts"
import { unlessAborted } from "./unless-aborted.ts"

/** Returns the template, and builds it if it does not exist. `signal` ends the wait. */
export async function ensureTemplate(
  core: ForTemplate,
  spec: TemplateSpec,
  signal?: AbortSignal,
): Promise<Template> {
  const { image, kernel, cpus, memoryMib, authority, programs } = spec
  const owner = programs?.owner ?? null
  const key = JSON.stringify([image.hash, kernel.hash, cpus, memoryMib, authority, programs])
  for (;;) {
    signal?.throwIfAborted()
    const found = await core.host.templates.find(spec)
    if (found) return found
    const building = core.templateBuilds.get(key) ?? buildOf(core, owner)
    if (building?.stop.signal.aborted) {
      await waitFor(building, signal).catch(() => undefined)
      continue
    }
    if (building && building !== core.templateBuilds.get(key)) throw oneAtATime()
    return await waitFor(building ?? begin(core, key, spec, owner), signal)
  }
}

function buildOf(core: Pick<Core, "templateBuilds">, owner: string | null): TemplateBuild | undefined {
  if (owner === null) return undefined
  return [...core.templateBuilds.values()].find((one) => one.owner === owner)
}

function begin(core: ForTemplate, key: string, spec: TemplateSpec, owner: string | null): TemplateBuild {
  const stop = new AbortController()
  const { promise, resolve } = Promise.withResolvers<Template>()
  const build: TemplateBuild = { owner, takesMib: 0, template: promise, waiting: 0, stop }
  const making = owner === null ? makeTemplate(core, spec, stop) : makeOwn(core, spec, owner, build)
  resolve(making.finally(() => core.templateBuilds.delete(key)))
  promise.catch(() => undefined)
  core.templateBuilds.set(key, build)
  return build
}

/** It counts in its owner's quota from the first moment on: its memory by its size, its disk by what it takes. */
async function makeOwn(
  core: ForTemplate,
  spec: TemplateSpec,
  owner: string,
  build: TemplateBuild,
): Promise<Template> {
  const { memoryMib } = spec
  const take = async (mib: number) => {
    await core.store.templateUse.take(owner, buildId(owner), mib)
    build.takesMib = mib
  }
  await makeRoomForOwn(core, owner, memoryMib)
  try {
    await take(memoryMib)
    return await makeTemplate(core, spec, build.stop, (diskMib) => take(memoryMib + diskMib))
  } finally {
    build.takesMib = 0
    await countOwnTemplates(core).catch((error: unknown) =>
      core.log.error({ error }, "the space of templates could not be counted"),
    )
  }
}

async function waitFor(build: TemplateBuild, signal: AbortSignal | undefined): Promise<Template> {
  build.waiting++
  try {
    return await (signal ? unlessAborted(build.template, signal) : build.template)
  } finally {
    build.waiting--
    if (build.owner !== null && build.waiting === 0) build.stop.abort(left())
  }
}

function left(): AppError {
  return new AppError("conflict", "the template was given up: no create waits for it any more")
}

function oneAtATime(): AppError {
  return new AppError("limit_exceeded", "a template of another start command of yours is being made", {
    hint: "try again when that create is done",
    retryable: true,
  })
}
