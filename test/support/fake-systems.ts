/** Systems of guests that are played: disks and saved memories by directory, and what runs. */

import type { GuestServiceState } from "@bhatti/contract/guest"
import { FakeFiles } from "./fake-files.ts"
import type { FakeProcess } from "./fake-process.ts"
import type { FakeWatch } from "./fake-watch.ts"

export type FakeMemory = {
  processes: FakeProcess[]
  watches: Map<string, FakeWatch>
  /** Ids are never given twice. */
  counts: { s: number; p: number }
  env: Record<string, string>
  /** A guest refuses commands from its boot, or from `quiesce`, until it is given an identity or refreshed. */
  isPersonalised: boolean
  /** Belongs to the memory: a clone has its template's, a copy its source's. */
  hasIdentity: boolean
  /** Its programs stand still. */
  isHeld: boolean
  services: GuestServiceState[]
}

export class FakeSystems {
  readonly disks = new Map<string, FakeFiles>()
  readonly running = new Map<string, FakeMemory>()
  readonly #saved = new Map<string, FakeMemory>()
  /** Directories whose sockets are open for a machine that is about to start, or runs. */
  readonly listening = new Set<string>()

  diskOf(directory: string): FakeFiles {
    const disk = this.disks.get(directory) ?? new FakeFiles()
    this.disks.set(directory, disk)
    return disk
  }

  /** Starts with the memory of a template that was saved, if it was. */
  clone(directory: string, template?: string): void {
    const saved = template === undefined ? undefined : this.#saved.get(template)
    const memory = saved ? copyOf(saved) : fresh()
    this.running.set(directory, { ...memory, isPersonalised: false, hasIdentity: true })
  }

  boot(directory: string): void {
    this.running.set(directory, fresh())
  }

  restore(directory: string): void {
    const saved = this.#saved.get(directory)
    if (saved) this.running.set(directory, copyOf(saved))
    else this.clone(directory)
  }

  save(directory: string, into: string): void {
    const memory = this.running.get(directory)
    if (memory) this.#saved.set(into, copyOf(memory))
  }

  end(directory: string): void {
    this.running.delete(directory)
    this.listening.delete(directory)
  }

  /** The disk as it is, and the saved memory. */
  copy(from: string, to: string): void {
    this.disks.set(to, this.diskOf(from).copy())
    const saved = this.#saved.get(from)
    if (saved) this.#saved.set(to, saved)
  }

  remove(directory: string): void {
    this.disks.delete(directory)
    this.#saved.delete(directory)
  }
}

function fresh(): FakeMemory {
  return {
    processes: [],
    watches: new Map(),
    counts: { s: 0, p: 0 },
    env: {},
    isPersonalised: false,
    hasIdentity: false,
    isHeld: false,
    services: [],
  }
}

/** A command ends with its client; only what is kept is in the copy. */
function copyOf(memory: FakeMemory): FakeMemory {
  const kept = memory.processes.filter(({ command }) => command.onDisconnect === "keep")
  const watches = new Map([...memory.watches].map(([id, watch]) => [id, watch.copy()]))
  const processes = kept.map((process) => process.copy())
  const services = memory.services.map((one) => ({ ...one }))
  return { ...memory, services, counts: { ...memory.counts }, processes, watches }
}
