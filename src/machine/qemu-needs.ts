/**
 * Which kept builds of QEMU and which kit disks are needed: those of running machines and of saved memories. Memories
 * are looked for in the directories themselves, also in those of unfinished copies and of rows that are lost, since a
 * memory without its build is worth nothing.
 */

import { readdir, readFile } from "node:fs/promises"
import { join } from "node:path"
import { whenMissing, whenNowhere } from "../lib/missing-files.ts"
import { commandLineOf, descriptorNamesOf } from "../lib/process-identity.ts"
import { openSealedJson } from "../lib/sealed-json.ts"
import { type MachineShape, topologies } from "./command-line.ts"
import { findMachines, type ProcessTraits } from "./find-processes.ts"
import { type QemuBuild, stateFingerprint } from "./fingerprint.ts"
import type { KeptQemus } from "./kept-qemu.ts"
import { kitOf, stateFingerprintOf } from "./process.ts"
import { manifestName, SnapshotManifest, snapshotDirectory } from "./saved-memory.ts"
import type { TemplateFiles } from "./template-files.ts"

type Sources = { dataDir: string; traits: ProcessTraits }

/** Ids of sandboxes and of snapshots. */
export type QemuUses = { running: string[]; stopped: string[]; copies: string[] }

type Use = { id: string; fingerprint: string; kit?: string | undefined; kind: keyof QemuUses }

/** Directories of things with a memory. */
const places = { sandboxes: "stopped", snapshots: "copies", "set-aside": "copies" } as const

/**
 * Returns what needs each build. A memory that several builds can load, which differ only in a library, needs the first
 * of them.
 */
export async function usesOf<Build extends QemuBuild & { id: string }>(
  options: Sources & { builds: readonly Build[]; shapes: readonly MachineShape[] },
): Promise<Map<Build["id"], QemuUses>> {
  const { builds, shapes } = options
  const loads = new Map<string, string>()
  for (const build of builds) {
    for (const shape of shapes) {
      for (const topology of topologies) {
        const fingerprint = stateFingerprint(build, shape, topology)
        if (!loads.has(fingerprint)) loads.set(fingerprint, build.id)
      }
    }
  }
  const uses = new Map<string, QemuUses>()
  for (const { id, fingerprint, kind } of await findUses(options)) {
    const build = loads.get(fingerprint)
    if (build === undefined) continue
    const found = uses.get(build) ?? { running: [], stopped: [], copies: [] }
    uses.set(build, { ...found, [kind]: [...found[kind], id] })
  }
  return uses
}

/**
 * Removes the builds that nothing needs, and returns their names. A memory may move while it is looked for, such as
 * from a snapshot to the sandbox that starts from it, so a build is removed only if two looks agree.
 */
export async function removeUnused(
  options: Sources & { qemus: KeptQemus; templates: Pick<TemplateFiles, "machines"> },
): Promise<string[]> {
  const builds = await options.qemus.list()
  if (builds.length === 1) return []
  const machines = await options.templates.machines()
  if (!machines) return []
  const shapes = machines.map(({ shape }) => shape)
  const look = () => usesOf({ ...options, builds, shapes })
  const seen = [await look(), await look()]
  const unused = builds.filter(
    ({ id }) => id !== options.qemus.present.id && seen.every((uses) => !uses.has(id)),
  )
  for (const build of unused) await options.qemus.remove(build)
  return unused.map(({ name }) => name)
}

/** Returns the paths of needed kit disks below the data directory; undefined while a template cannot be read. */
export async function kitsInUse(
  options: Sources & { templates: Pick<TemplateFiles, "machines"> },
): Promise<Set<string> | undefined> {
  const templates = await options.templates.machines()
  if (!templates) return undefined
  const all = [...templates, ...(await findUses(options)), ...(await findUses(options))]
  return new Set(all.flatMap(({ kit }) => kit ?? []))
}

/** Machines first: one that is saved meanwhile has its memory in a directory by then. */
async function findUses({ dataDir, traits }: Sources): Promise<Use[]> {
  const uses: Use[] = findMachines(traits).flatMap((pid) => {
    const fingerprint = stateFingerprintOf(pid)
    if (fingerprint === undefined) return []
    return [{ id: nameOf(pid), fingerprint, kit: kitOf(pid), kind: "running" as const }]
  })
  for (const [folder, kind] of Object.entries(places)) {
    for (const name of ((await readdir(join(dataDir, folder)).catch(whenMissing)) ?? []).toSorted()) {
      const path = join(snapshotDirectory(join(dataDir, folder, name)), manifestName)
      const text = await readFile(path, "utf8").catch(whenNowhere)
      const manifest = text === undefined ? undefined : SnapshotManifest.safeParse(openSealedJson(text)).data
      if (manifest) uses.push({ id: name, fingerprint: manifest.stateFingerprint, kit: manifest.kit, kind })
    }
  }
  return uses
}

/**
 * For people only: a QEMU that its guest has taken over can change its command line, and a forked machine has its
 * zygote's. A zygote holds a machine's disk too for the moment in which it forks it.
 */
function nameOf(pid: number): string {
  const held = descriptorNamesOf(pid)
  const template = firstIn(held, /\/zygotes\/([a-z0-9_]{1,80})-[a-z0-9]+\//)
  if (template !== undefined) return `zygote of ${template}`
  const words = commandLineOf(pid)
  const name =
    firstIn(held, /\/sandboxes\/([a-z0-9_-]{1,80})\/disk\.qcow2$/) ?? words[words.indexOf("-name") + 1] ?? ""
  return /^[a-z0-9_-]{1,80}$/.test(name) ? name : `process ${pid}`
}

function firstIn(names: readonly string[], pattern: RegExp): string | undefined {
  return names.flatMap((name) => pattern.exec(name)?.[1] ?? [])[0]
}
