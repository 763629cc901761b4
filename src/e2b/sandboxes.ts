/** Sandboxes of e2b's control plane: what each call asks of `core`. */

import { AppError } from "@bhatti/contract/errors"
import type { Core } from "../core/core.ts"
import { createSandbox } from "../core/create.ts"
import { createSandboxes } from "../core/create-several.ts"
import { destroySandbox } from "../core/destroy.ts"
import { editSandbox } from "../core/edit.ts"
import { findSandbox, listSandboxes } from "../core/find.ts"
import { findImage } from "../core/images.ts"
import { checkPermitted, isPermitted } from "../core/permitted.ts"
import { type CreateSandbox, describeById, describeSandboxes, type Sandbox } from "../core/sandbox.ts"
import { findSnapshot, resumeSnapshot } from "../core/snapshots.ts"
import { startByName, stopByName } from "../core/stop-start.ts"
import type { Account } from "../store/users.ts"
import { sandboxIdOf } from "./ids.ts"
import { policyOf, unsupported } from "./network.ts"
import { pageOf } from "./paging.ts"
import { type ListSandboxes, type Network, type NewSandbox, timeoutSecDefault } from "./shapes.ts"
import { stateOf, templateOf } from "./views.ts"

/** The template of clients that ask for none; an image of that name comes first. */
const baseTemplate = "base"
/** A lifetime of 0 would be one without an end. */
const ttlSecMin = 0.001

type Asked = { core: Core; account: Account }

export async function create(
  { core, account }: Asked,
  asked: NewSandbox,
  { signal }: { signal: AbortSignal },
): Promise<Sandbox> {
  if (asked.volumeMounts?.length) throw unsupported("volumeMounts")
  if (asked.iam) throw unsupported("iam")
  if (asked.mcp) throw unsupported("mcp")
  const netPolicy = policyOf(asked.network, asked.allow_internet_access)
  const input: CreateSandbox = {
    env: asked.envVars ?? {},
    labels: asked.metadata ?? {},
    ttlSec: ttlOf(asked.timeout),
    onTtl: asked.autoPause ? "pause" : "destroy",
    ...(netPolicy && { netPolicy }),
  }
  const { templateID } = asked
  const isSnapshot = await hasSnapshot(core, account, templateID)
  if (isSnapshot) return await fromSnapshot({ core, account }, templateID, { ...input, signal })
  const isBase = templateID === baseTemplate && !(await hasImage(core, account, baseTemplate))
  const { sandbox } = await createSandbox(
    core,
    account,
    { ...input, ...(!isBase && { image: templateID }) },
    { signal },
  )
  return sandbox
}

/** Changes directly after the resume all that a snapshot cannot be given with it. */
async function fromSnapshot(
  { core, account }: Asked,
  name: string,
  { env = {}, labels = {}, netPolicy, ttlSec, onTtl, signal }: CreateSandbox & { signal: AbortSignal },
): Promise<Sandbox> {
  if (Object.keys(env).length > 0) throw unsupported("envVars of a sandbox from a snapshot")
  const made = await resumeSnapshot(core, account, name, { secrets: [] }, { signal })
  const changes = { labelsAdd: labels, ttlSec, onTtl, ...(netPolicy && { netPolicy }) }
  // It is the caller's new sandbox: who may create it gives it all of its settings.
  const { scope: _, ...maker } = account
  try {
    return await editSandbox(core, maker, made.id, changes)
  } catch (error) {
    await destroySandbox(core, account, made.id)
    throw error
  }
}

export async function find({ core, account }: Asked, wireId: string): Promise<Sandbox> {
  const { id } = await findSandbox(core, account, sandboxIdOf(wireId))
  return await describeById(core, id)
}

export async function list({ core, account }: Asked, query: ListSandboxes) {
  const wanted = metadataOf(query.metadata)
  const states = query.state?.split(",")
  const after = query.startedAfter === undefined ? undefined : new Date(query.startedAfter)
  if (after && Number.isNaN(after.getTime())) throw new AppError("invalid", "startedAfter is no time")
  const records = await listSandboxes(core, account, wanted)
  const shown = (await describeSandboxes(core, records)).filter(
    (sandbox) =>
      sandbox.state.kind !== "creating" &&
      sandbox.state.kind !== "destroying" &&
      !sandbox.isInBatch &&
      (states?.includes(stateOf(sandbox)) ?? true) &&
      (after === undefined || new Date(sandbox.createdAt) > after) &&
      (query.template === undefined || query.template === templateOf(sandbox)),
  )
  return pageOf(shown, query)
}

/** Pairs of a query string in a query string, each encoded once more by itself. */
function metadataOf(text: string | undefined): string[] {
  try {
    return [...new URLSearchParams(text ?? "")].map((pair) => pair.map(decodeURIComponent).join("="))
  } catch (cause) {
    throw new AppError("invalid", "the metadata filter is not encoded as a query", { cause })
  }
}

export async function kill({ core, account }: Asked, wireId: string): Promise<void> {
  await destroySandbox(core, account, sandboxIdOf(wireId))
}

/** The sandbox ends so long from now on, be that sooner or later than before. */
export async function setTimeoutOf({ core, account }: Asked, wireId: string, sec: number): Promise<void> {
  await editSandbox(core, account, sandboxIdOf(wireId), { ttlSec: ttlOf(sec) })
}

/** The sandbox lives at least so long from now on. */
export async function extend(asked: Asked, wireId: string, sec: number): Promise<void> {
  const { endsAt, lifetime } = await find(asked, wireId)
  const leftMs = endsAt === null ? 0 : Date.parse(endsAt) - asked.core.clock.unixMs()
  if (lifetime === null || leftMs >= sec * 1000) return
  checkPermitted(asked.account, "edit")
  await setTimeoutOf(asked, wireId, sec)
}

export async function pause({ core, account }: Asked, wireId: string): Promise<void> {
  const sandbox = await find({ core, account }, wireId)
  if (stateOf(sandbox) === "paused") throw new AppError("conflict", `sandbox "${wireId}" is already paused`)
  await stopByName(core, account, sandbox.id)
}

/** Continues a paused sandbox. `isStrict`: one that is running is an error. */
export async function connect(
  { core, account }: Asked,
  wireId: string,
  {
    timeoutSec,
    autoPause,
    isStrict = false,
  }: {
    timeoutSec: number | null | undefined
    autoPause?: boolean | null | undefined
    isStrict?: boolean
  },
): Promise<{ sandbox: Sandbox; isResumed: boolean }> {
  const before = await find({ core, account }, wireId)
  const isResumed = stateOf(before) === "paused"
  if (!isResumed && isStrict) throw new AppError("conflict", `sandbox "${wireId}" is already running`)
  const sec = timeoutSec ?? timeoutSecDefault
  if (isResumed) {
    checkPermitted(account, "edit")
    // Before it runs, or the end of its former time could come first.
    const onTtl = autoPause === null || autoPause === undefined ? {} : { onTtl: onTtlOf(autoPause) }
    await editSandbox(core, account, before.id, { ttlSec: ttlOf(sec), ...onTtl })
    await startByName(core, account, before.id, { force: false })
  } else await extend({ core, account }, wireId, sec)
  return { sandbox: await find({ core, account }, wireId), isResumed }
}

export async function setNetwork({ core, account }: Asked, wireId: string, network: Network): Promise<void> {
  const netPolicy = policyOf(network, network.allow_internet_access) ?? { default: "public" }
  await editSandbox(core, account, sandboxIdOf(wireId), { netPolicy })
}

export async function fork(
  { core, account }: Asked,
  wireId: string,
  { count, timeoutSec, signal }: { count: number; timeoutSec: number; signal: AbortSignal },
): Promise<Sandbox[]> {
  const source = await find({ core, account }, wireId)
  const input = { from: source.id, ttlSec: ttlOf(timeoutSec), onTtl: source.onTtl }
  return await createSandboxes(core, account, input, { count, signal })
}

function onTtlOf(autoPause: boolean): "pause" | "destroy" {
  return autoPause ? "pause" : "destroy"
}

function ttlOf(sec: number | null | undefined): number {
  return Math.max(ttlSecMin, sec ?? timeoutSecDefault)
}

async function hasImage(core: Core, account: Account, name: string): Promise<boolean> {
  const { record } = await findImage(core, account, name)
  return record !== null || (await core.host.images.list()).some((image) => image.name === name)
}

/** Snapshots do not exist for a key without that permission. */
async function hasSnapshot(core: Core, account: Account, name: string): Promise<boolean> {
  if (!isPermitted(account, "snapshots")) return false
  try {
    return (await findSnapshot(core, account, name)).state === "ready"
  } catch (error) {
    if (error instanceof AppError && error.code === "not_found") return false
    throw error
  }
}
