/** The doctor's checks of QEMU's builds: which are kept, what needs them, and which are forbidden. */

import { AppError } from "@bhatti/contract/errors"
import { type Check, fail, ok, sizeInWords, warn } from "../lib/preflight.ts"
import { findQemu, type QemuBuild } from "./fingerprint.ts"
import { isForbidden } from "./forbidden-qemu.ts"
import { keptCopyOf, listKept } from "./kept-qemu.ts"
import { type QemuUses, usesOf } from "./qemu-needs.ts"
import { TemplateFiles } from "./template-files.ts"

type Kept = Pick<QemuBuild, "version" | "name"> & { id: string; mib: number; uses: QemuUses }

export type QemuFacts = {
  /** The one that new machines run, as the daemon finds it at its next start. */
  installed: Pick<QemuBuild, "version" | "name"> | undefined
  /** The others. */
  kept: Kept[]
}

const noUses: QemuUses = { running: [], stopped: [], copies: [] }
const namesMax = 10
const area = "qemu"

/** `uidBase` is undefined if machines run as the daemon's own user. */
export async function lookAtQemus(options: {
  dataDir: string
  uidBase: number | undefined
}): Promise<QemuFacts> {
  const { dataDir, uidBase } = options
  const installed = findInstalled()
  const all = await listKept(dataDir)
  const present = installed && (await keptCopyOf(dataDir, installed))
  const machines = (await new TemplateFiles(dataDir, () => undefined).machines()) ?? []
  const shapes = machines.map(({ shape }) => shape)
  const traits = { qemu: "qemu-system-x86_64", launcher: "launcher", uidBase }
  const isPresent = ({ id }: { id: string }) => id === present?.id
  const builds = [...all.filter(isPresent), ...all.filter((one) => !isPresent(one))]
  const uses = await usesOf({ dataDir, builds, shapes, traits })
  const kept = all
    .filter((one) => !isPresent(one))
    .map(({ id, version, name, mib }) => ({ id, version, name, mib, uses: uses.get(id) ?? noUses }))
  return { installed: installed && { version: installed.version, name: installed.name }, kept }
}

function findInstalled(): QemuBuild | undefined {
  try {
    return findQemu()
  } catch (error) {
    if (error instanceof AppError) return undefined
    throw error
  }
}

export function checkQemus({ installed, kept }: QemuFacts, forbidden: readonly string[]): Check[] {
  return [
    ...(installed && isForbidden(installed, forbidden)
      ? [
          fail(
            area,
            `QEMU ${installed.name} is installed, and forbidden_qemu forbids it; the daemon does not serve`,
            "install another QEMU, or take it out of forbidden_qemu in config.yaml",
          ),
        ]
      : []),
    ...kept.map((one) => checkKept(one, forbidden)),
  ]
}

function checkKept(kept: Kept, forbidden: readonly string[]): Check {
  const { name, id, mib, uses } = kept
  const which = `QEMU ${name}, build ${id}, ${sizeInWords(mib)}`
  if (!isForbidden(kept, forbidden)) return ok(area, `${which}, is kept for ${inWords(uses)}`)
  return warn(
    area,
    `${which}, is forbidden, and needed by ${inWords(uses, { withNames: true })}; what is saved will boot from its disk`,
    "restart what runs: it boots in the installed QEMU",
  )
}

function inWords({ running, stopped, copies }: QemuUses, { withNames = false } = {}): string {
  const parts = [
    [running, "running machine", "running machines"],
    [stopped, "stopped sandbox", "stopped sandboxes"],
    [copies, "named snapshot", "named snapshots"],
  ] as const
  const words = parts
    .filter(([ids]) => ids.length > 0)
    .map(([ids, one, more]) => `${ids.length} ${ids.length === 1 ? one : more}${withNames ? named(ids) : ""}`)
  return words.length === 0 ? "nothing, and will be removed" : words.join(", ")
}

function named(ids: readonly string[]): string {
  return ` (${ids.slice(0, namesMax).join(", ")}${ids.length > namesMax ? ", …" : ""})`
}
