/**
 * Machines on this host: start one (as a clone of a template, from its own snapshot, or from its disk), pause it,
 * save it, find it again, kill it. Knows nothing about the guest's contents or about when to do any of this.
 *
 *   template ──clone──► running ◄──resume/pause──► paused ──save──► snapshot ──restore──► running
 *                          └──(QEMU ends)──► disk only ──boot──► running
 */

import { constants } from "node:fs"
import { join, relative } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { availableMemoryMib } from "../lib/available-memory.ts"
import { hostBootId, isAlive, type ProcessIdentity } from "../lib/process-identity.ts"
import { checkDisk, diskPathOf } from "./bound-disk.ts"
import { plugDisk, pluggedInto, unplugDisk } from "./disk-plugs.ts"
import { findAllOfMachine, findMachine, isSlotInUse } from "./find-processes.ts"
import { type GuestEnd, readEnd } from "./guest-end.ts"
import { type Halt, Halts } from "./halt.ts"
import { startFromMemory } from "./load-memory.ts"
import type { From, Kernel, Machine, MachinePlace, MachinesOptions, Place } from "./machine-terms.ts"
import { Monitors } from "./monitors.ts"
import { readKernelLog, wasKilledForMemory } from "./out-of-memory.ts"
import { memoryBaseOf, untouchedMib } from "./own-memory.ts"
import { type MachineDisk, matchDisks, placeDisks, writePlugged } from "./plugged-disks.ts"
import {
  interfaceBytes,
  isGoneWithin,
  killProcess,
  machineNiceness,
  processCpuMs,
  processIoBytes,
  qemuIdOf,
  setNiceness,
  type Urgency,
} from "./process.ts"
import { kitsInUse, removeUnused } from "./qemu-needs.ts"
import type { Qmp } from "./qmp.ts"
import { saveSnapshot } from "./save-memory.ts"
import {
  checkSnapshot,
  readSnapshot,
  removeSnapshot,
  type SnapshotCheck,
  snapshotDirectory,
} from "./saved-memory.ts"
import { openSharedMemory } from "./shared-memory.ts"
import { agentSocket, startConnected } from "./sockets.ts"
import { groupOf, type Machine as MachineIn, openKernel, Starter } from "./starter.ts"
import { StderrPipes } from "./stderr.ts"
import { type Template, TemplateFiles } from "./template-files.ts"
import { Templates } from "./templates.ts"
import { type ForkResources, Zygotes } from "./zygotes.ts"

const qmpDeadlineMs = 10_000
const killDeadlineMs = 10_000
/** Low, but high enough that the work still runs on a host whose sandboxes all compute. */
const backgroundNiceness = 10
const mebibyte = 1024 * 1024

type Started<Guest> = { machine: MachineIn; guest: Guest }
/** Its error: the machine was cloned instead. */
type ForkResult = { error: unknown } | "done"
type Fate = Omit<GuestEnd, "process"> | { how: "running" | "out_of_memory" | "host_restart" | "killed" }
type Channel = { close(): void; share(open: () => number | undefined): void }

export class Machines<Guest extends Channel> {
  readonly templates: Templates<Guest>
  /** Undefined where no machine is forked. */
  readonly zygotes: Zygotes<Guest> | undefined
  readonly #options: MachinesOptions<Guest>
  readonly #templateFiles: TemplateFiles
  readonly #monitors = new Monitors()
  readonly #starter: Starter
  readonly #stderr = new StderrPipes()
  readonly #halts = new Halts({ deadlineMs: qmpDeadlineMs })

  constructor(options: MachinesOptions<Guest>) {
    this.#options = options
    this.#templateFiles = new TemplateFiles(options.dataDir, options.onDamage)
    this.#starter = new Starter(options, this.#stderr)
    this.templates = new Templates({
      ...options,
      files: this.#templateFiles,
      starter: this.#starter,
      diagnose: (machine) => this.#diagnose(machine),
      kill: (machine) => this.#kill(machine),
      killIn: (directory) => this.#killIn(directory),
    })
    this.zygotes =
      options.forks &&
      new Zygotes({
        ...{ ...options, ...options.forks, files: this.#templateFiles, starter: this.#starter },
        watch: (machine) => this.#monitors.of(machine).catch(() => undefined),
        kill: (machine) => this.#kill(machine),
        killIn: (directory) => this.#killIn(directory),
        setUrgency: (process, group, urgency) => this.#setUrgency(process, group, urgency),
      })
  }

  /** Starts the machine, which runs when this returns, with the daemon connected to its guest. */
  async start(
    { id, disks = [], ...place }: MachinePlace,
    from: From,
  ): Promise<{ machine: Machine; guest: Guest; fork?: ForkResult }> {
    const directory = this.#at(id)
    const paths = {
      name: id,
      directory,
      overlayPath: diskPathOf(directory),
      tapName: this.#options.tapOf(id),
    }
    const forked = await this.#fork({ ...place, ...paths, kit: place.template.kit }, from, disks)
    const started =
      (forked && "machine" in forked && forked) ||
      (await startConnected(directory, this.#options.connect, (sockets) => {
        const here = { ...place, ...paths, sockets, disks }
        if (from.kind === "template") return this.#clone(here)
        return from.kind === "memory" ? this.#restore(here) : this.#boot(here, from.kernel)
      }))
    // The template's guest knows nothing of them yet.
    if (from.kind === "template") await this.#plugAll(started, disks)
    const { process, memoryBase } = started.machine
    const machine = { id, process, memoryBase }
    const guest = this.#shared(machine, started.guest)
    return { machine, guest, ...(forked && { fork: "error" in forked ? forked : "done" }) }
  }

  async #fork(resources: ForkResources, from: From, disks: readonly MachineDisk[]) {
    if (from.kind === "disk" || !from.zygote) return undefined
    if (from.kind === "template") return this.zygotes?.tryFork(from.zygote, resources)
    return disks.length === 0 ? this.zygotes?.tryWake(from.zygote, resources) : undefined
  }

  async #plugAll({ machine, guest }: Started<Guest>, disks: readonly MachineDisk[]): Promise<void> {
    try {
      for (const disk of disks) await plugDisk(machine, await this.#monitors.of(machine), disk)
    } catch (error) {
      guest.close()
      await this.#kill(machine)
      throw error
    }
  }

  /** Connects to the guest of a machine that runs. */
  async connect(machine: Machine): Promise<Guest> {
    return this.#shared(machine, await this.#options.connect(agentSocket(this.#at(machine.id))))
  }

  /** Without shared memory, files take the slower path over the channel. */
  #shared({ id, process }: Machine, guest: Guest): Guest {
    guest.share(() => {
      try {
        return openSharedMemory(process)
      } catch (error) {
        this.#options.onUnshared(id, error)
        return undefined
      }
    })
    return guest
  }

  /** A clone of the template runs as soon as its state is loaded. */
  async #clone(resources: Place): Promise<MachineIn> {
    const memory = await this.#templateFiles.memory(resources.template)
    const { kit } = resources.template
    return this.#startAt({ ...resources, kit, disks: [] }, "clone", "template", (open) => ({
      memory,
      state: open(resources.template.statePath, constants.O_RDONLY),
    }))
  }

  /** Boots the sandbox from its own disk. */
  async #boot(resources: Place, kernel: Kernel): Promise<MachineIn> {
    const memory = this.#templateFiles.emptyMemory()
    const kernelArguments = kernel.arguments ?? []
    const kit = kernel.kit && relative(this.#options.dataDir, kernel.kit.file)
    const disks = placeDisks(resources.disks)
    return this.#startAt({ ...resources, kernelArguments, kit, disks }, "boot", "empty", (open) => ({
      memory,
      ...openKernel(kernel, open),
    }))
  }

  /** Starts the machine as `saveSnapshot` left it; it runs when this returns. The snapshot must have been checked. */
  async #restore(resources: Place): Promise<MachineIn> {
    const directory = snapshotDirectory(resources.directory)
    const found = await readSnapshot(directory)
    if ("damage" in found) throw new AppError("unavailable", found.damage, { retryable: false })
    const { manifest } = found
    const chosen = await this.#starter.qemuFor(resources.template, manifest)
    if ("reason" in chosen) throw new AppError("unavailable", chosen.reason, { retryable: false })
    const matched = await matchDisks(manifest.disks ?? [], resources.disks)
    if ("reason" in matched) throw new AppError("unavailable", matched.reason, { retryable: false })
    const base =
      manifest.memoryBase === "template" ? await this.#templateFiles.memory(resources.template) : undefined
    const memory = base ?? this.#templateFiles.emptyMemory()
    const how = { ...resources, ...chosen, ...matched, kit: manifest.kit }
    return startFromMemory({
      ...{ directory, base, checksum: manifest.memory.checksum },
      start: (state) => this.#startAt(how, "clone", manifest.memoryBase, () => ({ memory, state })),
      awaitMonitor: (machine) => this.#monitors.of(machine),
      kill: (machine) => this.#kill(machine),
    })
  }

  /** Throws if a sandbox's disk is damaged, as far as its header and tables show. */
  checkDisk(id: string): Promise<{ missingMib: number }> {
    return checkDisk(diskPathOf(this.#at(id)))
  }

  /**
   * Returns whether there is a snapshot that this host can restore, and the reason if not. Throws if its disk is
   * damaged.
   */
  checkSnapshot(id: string, template: Template, disks: readonly MachineDisk[] = []): Promise<SnapshotCheck> {
    return checkSnapshot(this.#at(id), async (manifest) => {
      const matched = await matchDisks(manifest.disks ?? [], disks)
      return "reason" in matched ? matched : this.#starter.qemuFor(template, manifest)
    })
  }

  /** Gives a running machine a further disk, which stays until it is unplugged or the machine ends. */
  async plugDisk(machine: Machine, disk: MachineDisk): Promise<void> {
    await plugDisk(this.#inPlace(machine), await this.#monitorOf(machine), disk)
  }

  async unplugDisk(machine: Machine, id: string): Promise<void> {
    await unplugDisk(this.#inPlace(machine), await this.#monitorOf(machine), id)
  }

  /** Pauses the vCPUs; memory stays. */
  async pause(machine: Machine): Promise<void> {
    await (await this.#monitorOf(machine)).command("stop", {}, { deadlineMs: qmpDeadlineMs })
  }

  async resume(machine: Machine): Promise<void> {
    await (await this.#monitorOf(machine)).command("cont", {}, { deadlineMs: qmpDeadlineMs })
  }

  /** Returns whether its processors are paused, and whether because the host is out of space. */
  async haltOf(machine: Machine): Promise<Halt> {
    return this.#halts.read(await this.#monitorOf(machine))
  }

  /**
   * Writes a paused machine's memory and device state beside its disk, or into the draft of a copy. The machine stays
   * paused and can be resumed. The signal cancels the save.
   */
  async saveSnapshot(machine: Machine, options?: { draft: string; signal: AbortSignal }): Promise<void> {
    const copy = options && { directory: this.#options.draftOf(options.draft), signal: options.signal }
    const qemu = this.#options.qemus.find(qemuIdOf(machine.process.pid))
    const monitor = await this.#monitorOf(machine)
    const disks = await pluggedInto(this.#inPlace(machine), monitor)
    const means = { monitor, halts: this.#halts, qemu: await qemu, disks }
    await saveSnapshot(this.#inPlace(machine), means, copy)
  }

  removeSnapshot(id: string): Promise<void> {
    return removeSnapshot(this.#at(id))
  }

  isRunning(machine: Machine): boolean {
    return isAlive(machine.process)
  }

  /** Finds a sandbox's running machine, in case a crash prevented its identity from being stored. */
  find(id: string): Machine | undefined {
    const [process] = findMachine(this.#at(id), this.#starter.traits)
    return process && { id, process, memoryBase: memoryBaseOf(process.pid) }
  }

  async untouchedMib({ process, memoryBase }: Machine): Promise<number | undefined> {
    return memoryBase === "empty" ? untouchedMib(process.pid) : undefined
  }

  usageOf({ id, process }: Machine): { cpuMs: number; diskBytes: number; networkBytes: number } {
    const tapName = this.#options.tapOf(id)
    return {
      cpuMs: processCpuMs(process),
      diskBytes: processIoBytes(process),
      networkBytes: tapName === undefined ? 0 : interfaceBytes(tapName),
    }
  }

  availableMemoryMib(): number {
    return availableMemoryMib({ groups: this.#options.cgroups.areUsed ? "outermost" : "own" })
  }

  /** Does nothing unless the change can be undone. */
  setUrgency(machine: Machine, urgency: Urgency): void {
    this.#setUrgency(machine.process, machine.id, urgency)
  }

  #setUrgency(identity: ProcessIdentity, group: string, urgency: Urgency): void {
    if (process.getuid?.() !== 0) return
    const niceness = urgency === "normal" ? machineNiceness : backgroundNiceness
    setNiceness(identity, niceness)
    this.#options.cgroups.setNiceness(group, niceness)
  }

  /** A machine closes its sockets a moment before it exits. */
  async fateOf({ id, process }: Machine, options: { deadlineMs: number }): Promise<Fate> {
    if (!(await isGoneWithin(process, options))) return { how: "running" }
    const end = await readEnd(this.#at(id))
    if (end && Bun.deepEquals(end.process, process)) return { how: end.how, console: end.console }
    if (this.#options.cgroups.ranOutOfMemory(id) || wasKilledForMemory(await readKernelLog(), process))
      return { how: "out_of_memory" }
    return { how: process.bootId === hostBootId ? "killed" : "host_restart" }
  }

  /** Returns the end of the sandbox's last machine, while it is known. */
  lastEndOf(id: string): Promise<Omit<GuestEnd, "process"> | undefined> {
    return readEnd(this.#at(id))
  }

  /** Ends the machine; without its process, whatever a crash has left of it. */
  async kill(machine: { id: string } | Machine): Promise<void> {
    if ("process" in machine) await this.#kill(this.#inPlace(machine))
    else await this.#killIn(this.#at(machine.id))
  }

  removeUnusedQemus(): Promise<string[]> {
    return removeUnused({ ...this.#needs(), qemus: this.#options.qemus })
  }

  /** Paths of the kit disks below the data directory that machines, saved or running, have. */
  kitsInUse(): Promise<Set<string> | undefined> {
    return kitsInUse(this.#needs())
  }

  #needs() {
    return {
      dataDir: this.#options.dataDir,
      templates: this.#templateFiles,
      traits: this.#starter.traits,
    }
  }

  /** Tells whether no new sandbox may get that slot, whatever the database says: a process has its user id. */
  isSlotInUse(slot: number): boolean {
    return isSlotInUse(this.#starter.traits.uidBase, slot)
  }

  /** Grows a running machine's disk to the size it was started for, and notifies its guest. */
  async growDisk(machine: Machine, diskMib: number): Promise<void> {
    const resize = { "node-name": "root", size: diskMib * mebibyte }
    await (await this.#monitorOf(machine)).command("block_resize", resize, { deadlineMs: qmpDeadlineMs })
  }

  /** The end of QEMU's output and of the guest's console, which may explain a machine's failure. For the log. */
  diagnose(machine: Machine): Promise<{ qemu: string; console: string }> {
    return this.#diagnose(this.#inPlace(machine))
  }

  async #diagnose(machine: MachineIn): Promise<{ qemu: string; console: string }> {
    return { qemu: this.#stderr.lastOf(machine.process), console: await this.#monitors.readConsole(machine) }
  }

  async #kill(machine: MachineIn): Promise<void> {
    this.#monitors.forget(machine)
    await killProcess(machine.process, { deadlineMs: killDeadlineMs })
    this.#stderr.forget(machine.process)
    this.#options.cgroups.remove(groupOf(machine.directory))
  }

  async #killIn(directory: string): Promise<void> {
    for (const identity of findAllOfMachine(directory, this.#starter.traits))
      await killProcess(identity, { deadlineMs: killDeadlineMs })
    this.#options.cgroups.remove(groupOf(directory))
  }

  #at(id: string): string {
    return join(this.#options.dataDir, "sandboxes", id)
  }

  #inPlace({ id, ...machine }: Machine): MachineIn {
    return { ...machine, directory: this.#at(id) }
  }

  #monitorOf(machine: Machine): Promise<Qmp> {
    return this.#monitors.of(this.#inPlace(machine))
  }

  async #startAt(...parameters: Parameters<Starter["startAt"]>): Promise<MachineIn> {
    const [{ directory, disks = [] }] = parameters
    await writePlugged(directory, disks)
    const machine = await this.#starter.startAt(...parameters)
    // Connects so that the end is noticed. The connection is not awaited; if it fails, the next command reconnects.
    this.#monitors.of(machine).catch(() => undefined)
    return machine
  }
}
