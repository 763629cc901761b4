/** Creating a sandbox: the intent is written first, then each thing is made with its undo beside it. */

import { AppError } from "../contract/errors.ts"
import type { CreateSandbox, Sandbox } from "../contract/sandbox.ts"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Account } from "../store/users.ts"
import { keepGuest } from "./attach.ts"
import { answerDeadlineMs } from "./awake.ts"
import type { Core } from "./core.ts"
import type { Guest, Template, TemplateSpec } from "./host.ts"
import { newIdentity } from "./identity.ts"
import { placeOf, rememberMachine } from "./machine-of.ts"
import { friendlyName } from "./names.ts"
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

  const record = await addRecord(core, account, input, spec)
  return core.turns.take(record.id, async () => {
    await using undo = new AsyncDisposableStack()
    undo.defer(() => core.store.sandboxes.remove(record.id))
    // The template comes after the record, so that names and limits are refused before a wait of seconds.
    const template = await ensureTemplate(core, spec)
    const { state, guest } = await startMachine(
      core,
      record,
      template,
      spec,
      { ...record.env, ...secrets },
      undo,
    )
    await furnish(guest, input)
    await core.store.sandboxes.setState(record.id, state)
    keepGuest(core, record, guest)
    undo.move()
    return { sandbox: viewSandbox({ ...record, state }), isNew: true }
  })
}

async function startMachine(
  core: Core,
  record: SandboxRecord,
  template: Template,
  spec: TemplateSpec,
  env: Record<string, string>,
  undo: AsyncDisposableStack,
): Promise<{ state: SandboxRecord["state"]; guest: Guest }> {
  const { disks, machines, guests } = core.host

  await core.store.sandboxes.setTemplate(record.id, template.id)
  const files = await disks.createSandbox({ id: record.id, blankOverlayPath: template.blankOverlayPath })
  undo.defer(() => disks.removeSandbox(record.id))

  const sockets = await machines.prepareSockets(files.directory)
  const guest = await guests.open({ socketPath: machines.agentSocket(files.directory) })
  undo.defer(() => guest.close())

  const machine = await machines.clone(placeOf(core, record, template, sockets))
  undo.defer(() => machines.kill(machine))

  const growDisk = record.diskMib > spec.image.diskMib
  try {
    if (growDisk) {
      // Before the state is loaded QEMU's disks are inactive, and resizing one ends it.
      await guest.waitReady({ deadlineMs: readyDeadlineMs })
      await machines.growDisk(machine, record.diskMib)
    }
    await Promise.race([
      guest.personalise(newIdentity(record, { env, growDisk }), { deadlineMs: readyDeadlineMs }),
      guest.closed.then(({ reason }) => {
        throw new AppError("unavailable", `the machine ended while it started: ${reason}`)
      }),
    ])
  } catch (cause) {
    core.log.error(
      { sandbox: record.id, cause, ...(await machines.diagnose(machine)) },
      "a sandbox did not start",
    )
    throw new AppError("unavailable", `sandbox "${record.name}" did not start`, {
      cause,
      hint: "try again; the daemon's log has the machine's last words",
    })
  }

  return { state: { kind: "hot", machine: rememberMachine(machine) }, guest }
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
): Promise<SandboxRecord> {
  const add = (name: string) =>
    core.store.sandboxes.add(account, {
      name,
      imageName: spec.image.name,
      imageHash: spec.image.hash,
      cpus: input.cpus,
      memoryMib: input.memory_mb,
      diskMib: input.disk_size_mb,
      env: input.env,
      secretNames: input.secrets,
      labels: input.labels,
    })
  if (input.name !== undefined) return add(input.name)
  for (let attempt = 0; ; attempt++) {
    try {
      return await add(friendlyName(Math.random, attempt))
    } catch (error) {
      const isTaken = error instanceof AppError && error.code === "conflict"
      if (!isTaken || attempt === nameAttempts) throw error
    }
  }
}
