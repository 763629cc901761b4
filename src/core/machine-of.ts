/** The machine that belongs to a record, and its place. */

import { AppError } from "@bhatti/contract/errors"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Core, OnHost } from "./core.ts"
import type { Machine, MachinePlace, Template } from "./host.ts"

export function machineOf(record: SandboxRecord): Machine | undefined {
  const { state } = record
  if (state.kind !== "hot" && state.kind !== "warm" && state.kind !== "stopping") return undefined
  return { ...state.machine, id: record.id }
}

/** The part of a machine that the store keeps. */
export function rememberMachine({ process, memoryBase }: Machine): Pick<Machine, "process" | "memoryBase"> {
  return { process, memoryBase }
}

/**
 * Records that its machine runs or is held. Skips a write that would change nothing, since a full disk rejects writes.
 */
export async function storeHot(
  core: Pick<Core, "store">,
  id: SandboxRecord["id"],
  machine: Machine,
): Promise<void> {
  const state = { kind: "hot", machine: rememberMachine(machine) } as const
  const stored = await core.store.sandboxes.get(id)
  if (!Bun.deepEquals(stored?.state, state)) await core.store.sandboxes.setState(id, state)
}

export function placeOf(
  { id, slot, diskMib }: Pick<SandboxRecord, "id" | "slot" | "diskMib">,
  template: Template,
): MachinePlace {
  return { id, slot, diskMib, template }
}

export async function templateOf(core: OnHost<"templates">, record: SandboxRecord): Promise<Template> {
  if (record.templateId === null) {
    throw new AppError("unavailable", `sandbox "${record.name}" has no disk yet`, {
      hint: "try again in a moment",
    })
  }
  return core.host.templates.get(record.templateId)
}

/** For a start: throws before anything changes if the sandbox's image is damaged. */
export async function templateToStart(
  core: OnHost<"images" | "templates">,
  record: SandboxRecord,
): Promise<Template> {
  const template = await templateOf(core, record)
  await core.host.images.checkImage({ name: record.imageName, hash: record.imageHash })
  return template
}
