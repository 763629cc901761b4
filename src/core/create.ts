/** Creating a sandbox: the intent is written first, then each thing is made with its undo beside it. */

import { AppError } from "../contract/errors.ts"
import type { CreateSandbox, Sandbox } from "../contract/sandbox.ts"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Account } from "../store/users.ts"
import { keepGuest } from "./attach.ts"
import { answerDeadlineMs } from "./awake.ts"
import type { Core } from "./core.ts"
import { removeEverything } from "./destroy.ts"
import { forkSandbox } from "./fork.ts"
import type { Guest, Machine, Template, TemplateSpec } from "./host.ts"
import { newIdentity } from "./identity.ts"
import { placeOf, rememberMachine } from "./machine-of.ts"
import { friendlyName } from "./names.ts"
import type { PooledSandbox } from "./pool.ts"
import { viewSandbox, viewSandboxes } from "./sandbox-view.ts"
import { ensureTemplate } from "./template.ts"

const readyDeadlineMs = 30_000
const nameAttempts = 5

/** `isNew: false`: the caller asked for a sandbox of that name only if there is none, and there is one. */
export async function createSandbox(
  core: Core,
  account: Account,
  input: CreateSandbox,
): Promise<{ sandbox: Sandbox; isNew: boolean }> {
  if (input.if_not_exists && input.name !== undefined) {
    const existing = await core.store.sandboxes.find(account.id, input.name)
    if (existing?.name === input.name) {
      const [sandbox] = await viewSandboxes(core, [existing])
      if (sandbox) return { sandbox, isNew: false }
    }
  }
  if (input.from !== undefined) {
    return { sandbox: await forkSandbox(core, account, input.from, input), isNew: true }
  }
  checkLimits(account, input)
  const secrets = await core.store.secrets.reveal(account.id, input.secrets)
  const spec = await templateSpec(core, input)
  if (input.disk_size_mb < spec.image.diskMib) {
    throw new AppError(
      "invalid",
      `image "${input.image}" needs a disk of at least ${spec.image.diskMib} MB`,
      {
        hint: "only written blocks use space on the host",
      },
    )
  }
  await checkSpace(core)
  using _going = core.pool.beginCreate()

  // One from the pool is the owner's as soon as the store says so; without one the intent to make it is written.
  const pooled = await takePooled(core, spec)
  const record = await addRecord(core, account, input, spec, pooled)
  return core.turns.take(record.id, async () => {
    await using undo = new AsyncDisposableStack()
    undo.defer(() => removeEverything(core, record))
    // The template comes after the record, so that names and limits are refused before a wait of seconds.
    const { machine, guest } = pooled ?? (await startMachine(core, record, await ensureTemplate(core, spec)))
    undo.defer(() => guest.close())
    if (!pooled) undo.defer(() => core.host.machines.kill(machine))
    try {
      // What is sent to a paused guest is the first that it reads.
      await Promise.all([
        pooled ? core.host.machines.resume(machine) : undefined,
        introduce(core, record, spec, { machine, guest, env: { ...record.env, ...secrets } }),
      ])
    } catch (cause) {
      throw await startFailure(core, record, machine, cause)
    }
    await furnish(guest, input)
    const state: SandboxRecord["state"] = { kind: "hot", machine: rememberMachine(machine) }
    await core.store.sandboxes.setState(record.id, state)
    keepGuest(core, record, guest)
    undo.move()
    return { sandbox: viewSandbox({ ...record, state }), isNew: true }
  })
}

async function takePooled(core: Core, spec: TemplateSpec): Promise<PooledSandbox | undefined> {
  const template = await core.host.machines.findTemplate(spec)
  if (!template) return undefined
  core.pool.wants(spec, template)
  return core.pool.take(template)
}

async function startMachine(
  core: Core,
  record: SandboxRecord,
  template: Template,
): Promise<{ machine: Machine; guest: Guest }> {
  const { disks, machines, guests } = core.host
  await core.store.sandboxes.setTemplate(record.id, template.id)
  const { directory } = await disks.createSandbox({
    id: record.id,
    blankOverlayPath: template.blankOverlayPath,
  })
  const sockets = await machines.prepareSockets(directory)
  const guest = await guests.open({ socketPath: machines.agentSocket(directory) })
  try {
    return { machine: await machines.clone(placeOf(core, record, template, sockets)), guest }
  } catch (error) {
    guest.close()
    throw error
  }
}

/** Gives the guest its identity, and its disk the size that was asked for. Until then nobody may use it. */
async function introduce(
  core: Core,
  record: SandboxRecord,
  spec: TemplateSpec,
  { machine, guest, env }: { machine: Machine; guest: Guest; env: Record<string, string> },
): Promise<void> {
  const growDisk = record.diskMib > spec.image.diskMib
  if (growDisk) {
    // Before the state is loaded QEMU's disks are inactive, and resizing one ends it.
    await guest.waitReady({ deadlineMs: readyDeadlineMs })
    await core.host.machines.growDisk(machine, record.diskMib)
  }
  await Promise.race([
    guest.personalise(newIdentity(record, { env, growDisk }), { deadlineMs: readyDeadlineMs }),
    guest.closed.then(({ reason }) => {
      throw new AppError("unavailable", `the machine ended while it started: ${reason}`)
    }),
  ])
}

async function startFailure(
  core: Core,
  record: SandboxRecord,
  machine: Machine,
  cause: unknown,
): Promise<AppError> {
  const words = await core.host.machines.diagnose(machine)
  core.log.error({ sandbox: record.id, cause, ...words }, "a sandbox did not start")
  return new AppError("unavailable", `sandbox "${record.name}" did not start`, {
    cause,
    hint: "try again; the daemon's log has the machine's last words",
  })
}

/** The files and the init script that were asked for. A file that cannot be written fails the create. */
async function furnish(guest: Guest, input: CreateSandbox): Promise<void> {
  for (const file of input.files) {
    const bytes = Buffer.from(file.content, "base64")
    const transfer = guest.writeFile({
      path: file.guest_path,
      size: bytes.length,
      parents: true,
      ...(file.mode !== undefined && { mode: file.mode }),
    })
    await Promise.race([transfer.write(bytes), transfer.result])
    transfer.endInput()
    await transfer.result
  }
  if (input.init !== undefined) {
    const start = { argv: ["bash", "-lc", input.init], name: "init", tty: { rows: 24, cols: 80 } }
    await guest.startSession(start, { deadlineMs: answerDeadlineMs })
  }
}

function checkLimits(account: Account, input: CreateSandbox): void {
  const hint = "ask for less, or the operator for a higher limit"
  if (input.cpus > account.maxCpus) {
    throw new AppError(
      "limit_exceeded",
      `${input.cpus} cpus are above your limit of ${account.maxCpus} per sandbox`,
      {
        hint,
      },
    )
  }
  if (input.memory_mb > account.maxMemoryMib) {
    const asked = `${input.memory_mb} MB of memory are above your limit of ${account.maxMemoryMib} per sandbox`
    throw new AppError("limit_exceeded", asked, { hint })
  }
}

async function templateSpec(core: Core, input: CreateSandbox): Promise<TemplateSpec> {
  const [image, kernel] = await Promise.all([
    core.host.images.readImage(input.image),
    core.host.images.readKernel(),
  ])
  return { image, kernel, cpus: input.cpus, memoryMib: input.memory_mb }
}

async function checkSpace(core: Core): Promise<void> {
  const freeMib = await core.host.disks.freeMib()
  if (freeMib >= core.settings.diskReserveMib) return
  throw new AppError("unavailable", `the host's disk is nearly full: ${freeMib} MB are free`, {
    hint: `free some space; creating keeps ${core.settings.diskReserveMib} MB (disk_reserve_mb in config.yaml)`,
  })
}

async function addRecord(
  core: Core,
  account: Account,
  input: CreateSandbox,
  spec: TemplateSpec,
  pooled: PooledSandbox | undefined,
): Promise<SandboxRecord> {
  const add = (name: string) => {
    const wanted = {
      name,
      imageName: spec.image.name,
      imageHash: spec.image.hash,
      cpus: input.cpus,
      memoryMib: input.memory_mb,
      diskMib: input.disk_size_mb,
      env: input.env,
      secretNames: input.secrets,
      labels: input.labels,
      keepHot: input.keep_hot,
      allowCold: true,
    }
    return pooled
      ? core.store.sandboxes.claim(pooled.id, account, wanted)
      : core.store.sandboxes.add(account, wanted)
  }
  try {
    return await addNamed(input.name, add)
  } catch (error) {
    if (pooled) core.pool.giveBack(pooled)
    throw error
  }
}

/** With the name that was asked for, or a friendly one that is not taken. */
export async function addNamed(
  name: string | undefined,
  add: (name: string) => Promise<SandboxRecord>,
): Promise<SandboxRecord> {
  if (name !== undefined) return add(name)
  for (let attempt = 0; ; attempt++) {
    try {
      return await add(friendlyName(Math.random, attempt))
    } catch (error) {
      const isTaken = error instanceof AppError && error.code === "conflict"
      if (!isTaken || attempt === nameAttempts) throw error
    }
  }
}
