/**
 * Forking: a new sandbox that starts as its source is now, memory, disk, running programs and all, with an identity of its
 * own. The source is paused for the copy and does not notice: its connections stay, its clock is set right after.
 */

import { AppError } from "../contract/errors.ts"
import { policyFrom } from "../contract/network.ts"
import type { CreateSandbox, Sandbox } from "../contract/sandbox.ts"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Account } from "../store/users.ts"
import { keepGuest } from "./attach.ts"
import { beginAttach, finishAttach } from "./attachment.ts"
import { awake } from "./awake.ts"
import type { Core } from "./core.ts"
import { addNamed } from "./create.ts"
import { removeEverything } from "./destroy.ts"
import { findSandbox, noSandbox } from "./find.ts"
import type { Template } from "./host.ts"
import { personalise } from "./identity.ts"
import { machineOf, placeOf, rememberMachine, templateOf } from "./machine-of.ts"
import { viewSandbox } from "./sandbox-view.ts"

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
      netPolicy: input.net_policy ? policyFrom(input.net_policy) : source.netPolicy,
    }),
  )
  return core.turns.take(record.id, async () => {
    await using undo = new AsyncDisposableStack()
    undo.defer(() => removeEverything(core, record))
    await core.store.sandboxes.setTemplate(record.id, template.id)
    await copySource(core, source, record, template)
    const state = await startCopy(core, record, template, { ...record.env, ...secrets })
    undo.move()
    return viewSandbox(core, { ...record, state })
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
  // A stopped source is started: its snapshot is its own and must stay in one piece with its disk.
  await awake(core, source)
  await core.turns.take(source.id, async () => {
    const now = await core.store.sandboxes.get(source.id)
    const machine = now && machineOf(core, now)
    if (!now || !machine) throw noSandbox(source.name)
    await machines.pause(machine)
    try {
      await machines.saveSnapshot(machine, template)
      await disks.copySandbox({ from: source.id, to: copy.id })
    } finally {
      await machines.removeSnapshot(machine.directory)
      await machines.resume(machine)
    }
    await core.guests.get(source.id)?.refresh({ deadlineMs: readyDeadlineMs })
  })
}

async function startCopy(
  core: Core,
  record: SandboxRecord,
  template: Template,
  env: Record<string, string>,
): Promise<SandboxRecord["state"]> {
  const { machines, disks, guests } = core.host
  const directory = disks.directoryOf(record.id)
  const attaching = beginAttach(core, record)
  const sockets = await machines.prepareSockets(directory)
  const guest = await guests.open({ socketPath: machines.agentSocket(directory) })
  try {
    const machine = await machines.restore(placeOf(core, record, template, sockets))
    // Its memory still holds the source's connection, perhaps in the middle of a frame.
    await guest.waitReady({ deadlineMs: readyDeadlineMs, resync: true })
    await personalise(core, record, guest, { env, growDisk: false, deadlineMs: readyDeadlineMs })
    await finishAttach(core, record, attaching)
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
