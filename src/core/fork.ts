/**
 * Forking: a new sandbox that starts as its source is now, memory, disk, running programs and all, with an identity of its
 * own. The source is paused for the copy and does not notice: its connections stay, its clock is set right after.
 */

import { AppError } from "../contract/errors.ts"
import type { CreateSandbox, Sandbox } from "../contract/sandbox.ts"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Account } from "../store/users.ts"
import { dropGuest, keepGuest } from "./attach.ts"
import type { Core } from "./core.ts"
import { addNamed, checkStillWanted } from "./create.ts"
import { removeEverything } from "./destroy.ts"
import { findSandbox, noSandbox } from "./find.ts"
import type { Machine, Template } from "./host.ts"
import { newIdentity } from "./identity.ts"
import { machineOf, placeOf, rememberMachine, templateOf } from "./machine-of.ts"
import { wakeSandbox } from "./power.ts"
import { viewSandbox } from "./sandbox-view.ts"
import { settle } from "./settle.ts"

const readyDeadlineMs = 30_000

export async function forkSandbox(
  core: Core,
  account: Account,
  from: string,
  input: CreateSandbox,
): Promise<Sandbox> {
  const source = await findSandbox(core, account, from)
  const template = await templateOf(core, source)
  const secrets = await core.store.secrets.reveal(account.id, input.secrets)
  const record = await addNamed(input.name, (name) =>
    core.store.sandboxes.add(account, {
      name,
      imageName: source.imageName,
      imageHash: source.imageHash,
      cpus: source.cpus,
      memoryMib: source.memoryMib,
      diskMib: source.diskMib,
      env: { ...source.env, ...input.env },
      // A secret reaches a copy only when it is asked for again.
      secretNames: input.secrets,
      labels: { ...source.labels, ...input.labels },
      keepHot: input.keep_hot,
      allowCold: source.allowCold,
    }),
  )
  return core.turns.take(record.id, async () => {
    await checkStillWanted(core, record)
    await using undo = new AsyncDisposableStack()
    undo.defer(() => removeEverything(core, record))
    await core.store.sandboxes.setTemplate(record.id, template.id)
    await copySource(core, source, record, template)
    const state = await startCopy(core, record, template, { ...record.env, ...secrets })
    undo.move()
    return viewSandbox({ ...record, state })
  })
}

/** Needs nothing but the source's turn, which it takes. */
async function copySource(
  core: Core,
  source: SandboxRecord,
  copy: SandboxRecord,
  template: Template,
): Promise<void> {
  const { machines, disks } = core.host
  await core.turns.take(source.id, async () => {
    const found = await settle(core, source.id)
    if (!found) throw noSandbox(source.name)
    // A stopped source is started: its snapshot is its own and must stay in one piece with its disk.
    await wakeSandbox(core, found)
    const now = await core.store.sandboxes.get(source.id)
    const machine = now && machineOf(core, now)
    if (!machine) throw noSandbox(source.name)
    try {
      await machines.pause(machine)
      await machines.saveSnapshot(machine, template)
      await disks.copySandbox({ from: source.id, to: copy.id })
    } finally {
      await goOn(core, now, machine)
    }
    await core.guests.get(source.id)?.refresh({ deadlineMs: readyDeadlineMs })
  })
}

/** The source runs again; if that fails it has no channel, and whoever wants it next repairs it. */
async function goOn(core: Core, source: SandboxRecord, machine: Machine): Promise<void> {
  try {
    await core.host.machines.resume(machine)
    await core.host.machines.removeSnapshot(machine.directory)
  } catch (error) {
    dropGuest(core, source.id)
    throw error
  }
}

async function startCopy(
  core: Core,
  record: SandboxRecord,
  template: Template,
  env: Record<string, string>,
): Promise<SandboxRecord["state"]> {
  const { machines, disks, guests } = core.host
  const directory = disks.directoryOf(record.id)
  const sockets = await machines.prepareSockets(directory)
  const guest = await guests.open({ socketPath: machines.agentSocket(directory) })
  try {
    const machine = await machines.restore(placeOf(core, record, template, sockets))
    // Its memory still holds the source's connection, perhaps in the middle of a frame.
    await guest.waitReady({ deadlineMs: readyDeadlineMs, resync: true })
    await guest.personalise(newIdentity(record, { env, growDisk: false }), { deadlineMs: readyDeadlineMs })
    const state: SandboxRecord["state"] = { kind: "hot", machine: rememberMachine(machine) }
    await core.store.sandboxes.setState(record.id, state)
    keepGuest(core, record, guest)
    await machines.removeSnapshot(directory)
    return state
  } catch (cause) {
    guest.close()
    throw new AppError("unavailable", `the copy "${record.name}" did not start`, {
      cause,
      hint: "the source goes on as it was; try again",
    })
  }
}
