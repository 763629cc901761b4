/** Creates a sandbox: the intent is written first, then each resource is made with its undo beside it. */

import { AppError } from "@bhatti/contract/errors"
import { limits } from "@bhatti/contract/limits"
import { clonedMib } from "../rules/host-memory.ts"
import { checkInput } from "../rules/input.ts"
import { specOf } from "../store/sandbox-spec.ts"
import type { NewSandbox, SandboxRecord } from "../store/sandboxes.ts"
import type { Account } from "../store/users.ts"
import { destroyIfAbandoned } from "./abandoned.ts"
import { allOrNone, checkStillWanted } from "./all-or-none.ts"
import { answerDeadlineMs } from "./awake.ts"
import { initStart } from "./boot-script.ts"
import type { Core, ForStart, ForTemplate, OnHost } from "./core.ts"
import { addNamed, checkSizeLimits, checkSpace, checkStillAwaited, goneError } from "./create-checks.ts"
import { forkSandbox } from "./fork.ts"
import { forkOrClone } from "./fork-or-clone.ts"
import type { Guest, Started, Template, TemplateSpec } from "./host.ts"
import { personalise } from "./identity.ts"
import { mainOf, startMain } from "./image-program.ts"
import { type FoundImage, findImage, withOwnImages } from "./images.ts"
import { initSystemOf, startInit } from "./init-system.ts"
import type { PooledSandbox } from "./parts.ts"
import { checkPermitted, checkSecretsPermitted } from "./permitted.ts"
import { policyAskedFor, settingsAskedFor } from "./policy.ts"
import { type CreateSandbox, describeSandbox, describeSandboxes, type Sandbox } from "./sandbox.ts"
import { servicesOf, startServices } from "./services.ts"
import { readyDeadlineMs, startSandbox } from "./start.ts"
import { startClone } from "./start-command.ts"
import { templateSpec } from "./template.ts"
import { ensureTemplate } from "./template-builds.ts"

/** Disk space of an empty disk and a guest's first writes. */
const clonedDiskMib = 1

/**
 * `isNew` is false if the caller asked for a sandbox only if none has that name, and one exists.
 * `signal` aborts when the client disconnects; the create is then rolled back.
 */
export async function createSandbox(
  core: Core,
  account: Account,
  input: CreateSandbox,
  { signal }: { signal?: AbortSignal | undefined } = {},
): Promise<{ sandbox: Sandbox; isNew: boolean }> {
  const startedAt = core.clock.nowMs()
  checkInput(input)
  if (input.ifNotExists) {
    const existing = await findWhole(core, account, input.name, signal)
    if (existing) checkPermitted(account, "read")
    const [sandbox] = existing ? await describeSandboxes(core, [existing]) : []
    if (sandbox) return { sandbox, isNew: false }
  }
  if (input.from !== undefined) {
    const [sandbox] = await forkSandbox(core, account, input.from, input, { count: 1, signal })
    if (!sandbox) throw new Error("a fork gave no sandbox")
    return { sandbox, isNew: true }
  }
  const plan = await planCreate(core, account, input)
  // A pooled sandbox counts too: its owner uses its memory, and the pool makes another.
  using _memory = core.memory.promise(clonedMib(plan.spec))
  using _going = core.pool.beginCreate()

  // The store assigns a pooled sandbox to the owner; without one the intent to create is written.
  const pooled = await takePooled(core, plan)
  const record = await addRecord(core, account, input, plan, pooled)
  if (!record) return await createSandbox(core, account, input, { signal })
  // Awaited here, so that until then its memory stays promised and the pool stays idle.
  return await allOrNone(core, [record], async () => {
    const { sandbox, from } = await startNew(core, record, input, { ...plan, pooled, signal })
    recordCreated(core, record, { from, startedAt })
    destroyIfAbandoned(core, account, [sandbox], signal)
    return { sandbox, isNew: true }
  })
}

/** The checked input that several creates share; no resource is taken yet. */
export type CreatePlan = {
  spec: TemplateSpec
  wanted: Omit<NewSandbox, "name">
  /** Values, by name. */
  secrets: Record<string, string>
}

export async function planCreate(
  core: Pick<Core, "lifetimes" | "settings" | "store"> & OnHost<"disks" | "images" | "network">,
  account: Account,
  input: CreateSandbox,
): Promise<CreatePlan> {
  const asked = {
    image: input.image ?? limits.imageDefault,
    cpus: input.cpus ?? limits.cpusDefault,
    memoryMib: input.memoryMib ?? limits.memoryMibDefault,
    diskMib: input.diskMib ?? limits.diskMibDefault,
  }
  checkSizeLimits(account, asked)
  checkSecretsPermitted(account, input.secrets ?? [])
  const secrets = await core.store.secrets.reveal(account.id, input.secrets ?? [])
  const { startCommand: start, readyCommand: ready = "true" } = input
  const programs = start === undefined ? undefined : { start, ready, owner: account.id }
  const { diskName, record } = await imageAskedFor(core, account, input.image)
  const spec = await templateSpec(core, { ...asked, image: diskName, programs }).catch(
    async (error: unknown) => {
      throw record ? error : await withOwnImages(core, account, { error, name: diskName })
    },
  )
  if (input.diskMib === undefined) asked.diskMib = Math.max(asked.diskMib, spec.image.diskMib)
  if (asked.diskMib < spec.image.diskMib) {
    throw new AppError(
      "invalid",
      `image "${asked.image}" needs a disk of at least ${spec.image.diskMib} MB`,
      {
        hint: "only written blocks use space on the host",
      },
    )
  }
  await checkSpace(core)
  const wanted = specOf({
    imageName: spec.image.name,
    imageHash: spec.image.hash,
    imageId: record?.id ?? null,
    imageShownAs: record?.name ?? null,
    imageConfig: spec.image.config ?? null,
    mainCommand: mainAskedFor(input, { name: record?.name ?? asked.image, config: spec.image.config }),
    cpus: spec.cpus,
    memoryMib: spec.memoryMib,
    diskMib: asked.diskMib,
    env: input.env ?? {},
    secretNames: input.secrets ?? [],
    labels: input.labels ?? {},
    bootScript: (input.onBoot ?? true) ? (input.init ?? null) : null,
    startCommand: spec.programs?.start ?? null,
    readyCommand: spec.programs?.ready ?? null,
    services: servicesOf(spec.image.services, input.services),
    initSystem: initSystemOf(spec, input.initSystem),
    netPolicy: policyAskedFor(core),
    ...core.lifetimes.defaultsOf(account.name),
    ...settingsAskedFor(core, input),
  })
  const lifetime = core.lifetimes.begin(wanted)
  return { spec, wanted: { ...wanted, usedMib: clonedDiskMib, lifetime }, secrets }
}

/** Without a name it is the host's default, whatever the account's own images are called. */
async function imageAskedFor(
  core: Pick<Core, "store"> & OnHost<"images">,
  account: Account,
  name: string | undefined,
): Promise<FoundImage> {
  if (name === undefined) return { diskName: limits.imageDefault, record: null }
  return await findImage(core, account, name)
}

function mainAskedFor(
  { run, startCommand }: CreateSandbox,
  image: Parameters<typeof mainOf>[0],
): string[] | null {
  if (run === undefined) return null
  if (startCommand !== undefined)
    throw new AppError("invalid", "a sandbox has one main program: the image's, or the start command")
  return mainOf(image, run)
}

type New = Pick<CreatePlan, "spec" | "secrets"> & {
  pooled: PooledSandbox | undefined
  signal: AbortSignal | undefined
}

type NewFrom = "pool" | "fork" | "template"

/** Starts the sandbox of a row, or throws and leaves only the row. Needs its turn. */
export async function startNew(
  core: ForStart & ForTemplate & Pick<Core, "space" | "waits"> & OnHost<"disks">,
  record: SandboxRecord,
  input: CreateSandbox,
  wanted: New,
): Promise<{ sandbox: Sandbox; from: NewFrom }> {
  const { pooled, signal } = wanted
  let isPending = false
  let from: NewFrom = "pool"
  const { state } = await startSandbox(core, record, {
    from: pooled
      ? { kind: "pool", started: pooled }
      : { kind: "template", start: () => startNewMachine(core, record, wanted) },
    async giveIdentity(started) {
      if (!pooled) from = started.fork === "done" ? "fork" : "template"
      isPending = (await giveIdentity(core, record, wanted, started)).isPending
    },
    async prepareGuest(guest) {
      await writeFiles(guest, input)
      if (isPending) await startClone(core, record, guest)
      await startInit(record, guest)
      await startServices(record, guest, { hasInit: input.init !== undefined })
      await startMain(record, guest)
      if (input.init !== undefined)
        await guest.processes.startDetached(initStart(record, input.init), { deadlineMs: answerDeadlineMs })
      checkStillAwaited(record, signal)
    },
  })
  return { sandbox: await describeSandbox(core, { ...record, state }), from }
}

export function recordCreated(
  core: Pick<Core, "clock" | "events">,
  record: SandboxRecord,
  { from, startedAt }: { from: NewFrom; startedAt: number },
): void {
  core.events.record({
    type: "sandbox.created",
    userId: record.userId,
    sandbox: record,
    meta: {
      by: "user",
      from,
      image: record.imageShownAs ?? record.imageName,
      ms: Math.round(core.clock.nowMs() - startedAt),
    },
  })
}

/**
 * Finds the account's sandbox of that name. One that is still being made may be rolled back, and one that is being
 * destroyed is nearly gone, so its turn is awaited first.
 */
async function findWhole(
  core: Pick<Core, "destroying" | "store" | "turns">,
  account: Account,
  name: string | undefined,
  signal: AbortSignal | undefined,
): Promise<SandboxRecord | undefined> {
  for (let attempt = 0; attempt < 3; attempt++) {
    const found = name === undefined ? undefined : await core.store.sandboxes.find(account, name)
    if (!found || found.name !== name) return undefined
    const isPassing = found.isInBatch || found.state.kind === "creating" || found.state.kind === "destroying"
    if (!isPassing && !core.destroying.has(found.id)) return found
    await core.turns.take(found.id, async () => {}, signal && { signal })
  }
  throw new AppError("conflict", `sandbox "${name}" is being made or destroyed`, { retryable: true })
}

/** A pooled machine was started for a disk of the image's size, which bounds what its QEMU may write. */
export async function takePooled(
  core: Pick<Core, "metrics" | "pool"> & OnHost<"templates">,
  { spec, wanted }: Pick<CreatePlan, "spec" | "wanted">,
): Promise<PooledSandbox | undefined> {
  if (wanted.diskMib > spec.image.diskMib) return undefined
  // Machines in advance, which take memory, are made only of templates that serve everybody.
  if (spec.programs?.owner) return undefined
  const template = await core.host.templates.find(spec)
  if (!template) return undefined
  core.pool.wants(spec, template)
  const pooled = core.pool.take(template)
  core.metrics.poolAsked(pooled !== undefined)
  return pooled
}

/**
 * While this waits, the owner may ask for the reason, destroy the sandbox or disconnect; the template is still built,
 * unless it would serve only its owner.
 */
async function waitForTemplate(
  core: ForTemplate & Pick<Core, "destroying" | "waits">,
  record: SandboxRecord,
  spec: TemplateSpec,
  signal: AbortSignal | undefined,
): Promise<Template> {
  checkStillAwaited(record, signal)
  core.waits.set(record.id, waitText(record, spec))
  const left = new AbortController()
  const leave = () => left.abort(goneError(record))
  signal?.addEventListener("abort", leave, { once: true })
  try {
    return await core.destroying.watch([record], (destroying) =>
      ensureTemplate(core, spec, AbortSignal.any([left.signal, destroying])),
    )
  } finally {
    signal?.removeEventListener("abort", leave)
    core.waits.delete(record.id)
  }
}

function waitText({ cpus, memoryMib }: SandboxRecord, { programs }: TemplateSpec): string {
  const size = `${cpus === 1 ? "1 cpu" : `${cpus} cpus`}, ${memoryMib} MB`
  if (programs)
    return `starting "${programs.start.slice(0, 60)}" in a template for ${size}, once; the next create with it is fast`
  return `preparing a template for ${size}, once per size; the next create of it is fast`
}

/** The template comes after the record, so that invalid names and exceeded limits fail before a wait of seconds. */
async function startNewMachine(
  core: ForTemplate & Pick<Core, "destroying" | "store" | "waits"> & OnHost<"disks" | "machines">,
  record: SandboxRecord,
  { spec, signal }: New,
): Promise<Started> {
  const template = await waitForTemplate(core, record, spec, signal)
  await checkStillWanted(core, record)
  core.zygotes.wants(spec, template)
  await core.store.sandboxes.setTemplate(record.id, template.id)
  return await forkOrClone(core, record, template)
}

/** Gives the guest its identity, and its disk the requested size. No request may use it before that. */
async function giveIdentity(
  core: Pick<Core, "log" | "settings" | "store"> & OnHost<"machines" | "network">,
  record: SandboxRecord,
  { spec, secrets, pooled }: New,
  { machine, guest }: Started,
): Promise<{ isPending: boolean }> {
  const { machines } = core.host
  const growDisk = record.diskMib > spec.image.diskMib
  const giveIdentity = async () => {
    if (growDisk) {
      // QEMU's disks are inactive until the state is loaded, and resizing an inactive disk ends QEMU.
      await guest.waitReady({ deadlineMs: readyDeadlineMs })
      await machines.growDisk(machine, record.diskMib)
    }
    const env = { ...record.env, ...secrets }
    return await Promise.race([
      personalise(core, record, guest, { env, growDisk, isNew: true, deadlineMs: readyDeadlineMs }),
      guest.closed.then(({ reason }) => {
        throw new AppError("unavailable", `the machine ended while it started: ${reason}`)
      }),
    ])
  }
  try {
    // A paused guest reads this first when it resumes.
    const [identity] = await Promise.all([giveIdentity(), pooled ? machines.resume(machine) : undefined])
    return identity
  } catch (cause) {
    const words = await machines.diagnose(machine)
    core.log.error({ sandbox: record.id, cause, ...words }, "a sandbox did not start")
    throw new AppError("unavailable", `sandbox "${record.name}" did not start`, {
      cause,
      hint: "try again; the daemon's log has the end of the machine's console",
    })
  }
}

/** A file that cannot be written fails the create. */
async function writeFiles(guest: Guest, input: CreateSandbox): Promise<void> {
  for (const { path, bytes, mode } of input.files ?? []) {
    const transfer = guest.open({
      op: "writeFile",
      path,
      size: bytes.length,
      parents: true,
      ...(mode !== undefined && { mode }),
    })
    await Promise.race([transfer.write(bytes), transfer.result])
    transfer.endInput()
    await transfer.result
  }
}

/** Returns undefined if the name has just been taken, and the caller wants a sandbox only if there is none. */
async function addRecord(
  core: Pick<Core, "pool" | "store"> & OnHost<"machines">,
  account: Account,
  input: CreateSandbox,
  { wanted }: CreatePlan,
  pooled: PooledSandbox | undefined,
): Promise<SandboxRecord | undefined> {
  const { sandboxes } = core.store
  const add = (name: string) =>
    pooled
      ? sandboxes.claim(pooled.id, account, { ...wanted, name })
      : sandboxes.add(account, { ...wanted, name }, core.host.machines)
  try {
    return await addNamed(input.name, add)
  } catch (error) {
    if (pooled) core.pool.giveBack(pooled)
    if (input.ifNotExists && error instanceof AppError && error.code === "conflict") return undefined
    throw error
  }
}
