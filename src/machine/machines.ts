/**
 * Machines on this host: start one (as a clone of a template, from its own snapshot, or from its disk), pause it,
 * save it, find it again, kill it. Knows nothing about the guest's contents or about when to do any of this.
 *
 *   template ──clone──► running ◄──resume/pause──► paused ──save──► snapshot ──restore──► running
 *                          └──(QEMU ends)──► disk only ──boot──► running
 */

import { closeSync, constants, write } from "node:fs"
import { readFile, rm } from "node:fs/promises"
import { basename, join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { availableMemoryMib } from "../lib/available-memory.ts"
import { createPipe, readAhead } from "../lib/posix.ts"
import { hostBootId, isAlive } from "../lib/process-identity.ts"
import { randomHex } from "../lib/random-hex.ts"
import { checkDisk, diskPathOf } from "./bound-disk.ts"
import type { Cgroups } from "./cgroups.ts"
import { savedFlags } from "./device-state.ts"
import { findAllOfMachine, findMachine, slotsInUse } from "./find-processes.ts"
import { type GuestEnd, readEnd } from "./guest-end.ts"
import { type Halt, Halts } from "./halt.ts"
import { Monitors } from "./monitors.ts"
import { emptyOldLogs } from "./old-log-files.ts"
import { readKernelLog, wasKilledForMemory } from "./out-of-memory.ts"
import { loadOwnMemory, memoryBaseOf, untouchedMib } from "./own-memory.ts"
import {
  interfaceBytes,
  isGoneWithin,
  killProcess,
  machineNiceness,
  processCpuMs,
  processIoBytes,
  setNiceness,
} from "./process.ts"
import { saveSnapshot } from "./save-memory.ts"
import {
  checkSnapshot,
  readSnapshot,
  removeSnapshot,
  type SnapshotCheck,
  snapshotDirectory,
} from "./saved-memory.ts"
import { openSharedMemory } from "./shared-memory.ts"
import { agentSocket, listenSockets, type Sockets } from "./sockets.ts"
import {
  groupOf,
  type Machine,
  type MachineResources,
  openKernel,
  Starter,
  type StarterOptions,
  templateSlot,
} from "./starter.ts"
import { StderrPipes } from "./stderr.ts"
import { type Template, type TemplateDraft, type TemplateSpec, Templates } from "./templates.ts"

const qmpDeadlineMs = 10_000
const killDeadlineMs = 10_000
/** Low, but high enough that the work still runs on a host whose sandboxes all compute. */
const backgroundNiceness = 10
const mebibyte = 1024 * 1024

export class Machines {
  readonly bootId = hostBootId
  readonly templates: Templates
  readonly #dataDir: string
  readonly #cgroups: Cgroups
  readonly #monitors = new Monitors()
  readonly #starter: Starter
  readonly #stderr = new StderrPipes()
  readonly #halts = new Halts({ deadlineMs: qmpDeadlineMs })

  constructor(
    options: StarterOptions & {
      dataDir: string
      /** Called for damaged files that are taken out of use. */
      onDamage: (error: AppError) => void
    },
  ) {
    this.templates = new Templates(options.dataDir, options.onDamage)
    this.#dataDir = options.dataDir
    this.#cgroups = options.cgroups
    this.#starter = new Starter(options, this.#stderr)
  }

  findTemplate(spec: TemplateSpec): Promise<Template | undefined> {
    return this.templates.find(this.#starter.templateFingerprint(spec))
  }

  getTemplate(id: string): Promise<Template> {
    return this.templates.get(id)
  }

  /** Loads the template's memory in advance, so that its first clone does not wait for that. */
  async loadTemplate(template: Template): Promise<void> {
    await this.templates.memory(template)
  }

  beginTemplate(spec: TemplateSpec): Promise<TemplateDraft> {
    return this.templates.begin({
      fingerprint: this.#starter.templateFingerprint(spec),
      shape: this.#starter.shape(spec),
      spec,
    })
  }

  /** Boots the draft's image; its disks must exist. */
  async bootTemplate(draft: TemplateDraft, spec: TemplateSpec, sockets: Sockets): Promise<Machine> {
    return this.#starter.start({
      role: "template",
      diskMib: spec.image.diskMib,
      shape: this.#starter.shape(spec),
      name: templateMachineName(draft.directory),
      slot: templateSlot,
      directory: draft.directory,
      sockets,
      memoryBase: "empty",
      files: (open) => ({
        memory: draft.memoryFd,
        overlayDisk: open(draft.diskPath, constants.O_RDWR),
        baseDisk: open(spec.image.file, constants.O_RDONLY),
        ...openKernel(spec.kernel, open),
        saved: open(draft.statePath, savedFlags),
      }),
      tapName: this.#starter.network === "tap" ? `bht${randomHex(4)}` : undefined,
    })
  }

  async publishTemplate(draft: TemplateDraft, machine: Machine): Promise<Template> {
    const template = await this.templates.publish(draft, machine.process)
    this.#cgroups.remove(groupOf(draft.directory))
    return template
  }

  async abandonTemplate(draft: TemplateDraft): Promise<void> {
    closeSync(draft.memoryFd)
    await rm(draft.directory, { recursive: true, force: true })
  }

  removeTemplate(id: string, options: { unusedForMs: number }): Promise<boolean> {
    return this.templates.remove(id, options)
  }

  measureTemplates(): Promise<{ id: string; mib: number; imageHash: string; lastUsedMs: number }[]> {
    return this.templates.measure()
  }

  /** Removes unfinished templates of an earlier run and their machines, and QEMU output kept by earlier versions. */
  async removeLeftovers(): Promise<void> {
    await emptyOldLogs(join(this.#dataDir, "sandboxes"))
    for (const directory of this.templates.listUnfinished()) {
      await this.killIn(directory)
      await rm(directory, { recursive: true, force: true })
    }
  }

  /** Listens on behalf of a machine that is about to start. The guest's channel must be connected before that. */
  prepareSockets(directory: string): Promise<Sockets> {
    return listenSockets(directory)
  }

  /** Starts a clone of the template, which runs as soon as its state is loaded. Closes `resources.sockets`. */
  async clone(resources: MachineResources): Promise<Machine> {
    const memory = await this.templates.memory(resources.template)
    return this.#startAt(resources, "clone", "template", (open) => ({
      memory,
      state: open(resources.template.statePath, constants.O_RDONLY),
    }))
  }

  /** Boots the sandbox from its own disk. */
  async boot(
    resources: MachineResources,
    kernel: { vmlinux: string; initramfs: string; arguments?: string[] },
  ): Promise<Machine> {
    const memory = this.templates.emptyMemory()
    const kernelArguments = kernel.arguments ?? []
    return this.#startAt({ ...resources, kernelArguments }, "boot", "empty", (open) => ({
      memory,
      ...openKernel(kernel, open),
    }))
  }

  /** Starts the machine as `saveSnapshot` left it; it runs when this returns. The snapshot must have been checked. */
  async restore(resources: MachineResources): Promise<Machine> {
    const directory = snapshotDirectory(resources.directory)
    const found = await readSnapshot(directory)
    if ("damage" in found) throw new AppError("unavailable", found.damage, { retryable: false })
    const { manifest } = found
    readAhead(join(directory, "memory"))
    const state = await readFile(join(directory, "state"))
    const base =
      manifest.memoryBase === "template" ? await this.templates.memory(resources.template) : undefined
    const memory = base ?? this.templates.emptyMemory()

    // QEMU waits at the other end of a pipe for its state until the matching memory is in place.
    const pipe = createPipe()
    let machine: Machine
    try {
      machine = await this.#startAt(resources, "clone", manifest.memoryBase, () => ({
        memory,
        state: pipe.readFd,
      }))
    } catch (error) {
      closeSync(pipe.writeFd)
      throw error
    } finally {
      closeSync(pipe.readFd)
    }
    try {
      await this.#monitors.of(machine)
      await loadOwnMemory({
        pid: machine.process.pid,
        path: join(directory, "memory"),
        checksum: manifest.memory.checksum,
        base,
      })
      await writePipe(pipe.writeFd, state)
    } catch (error) {
      await this.kill(machine)
      throw error
    } finally {
      closeSync(pipe.writeFd)
    }
    return machine
  }

  /** Throws if a sandbox's disk is damaged, as far as its header and tables show. */
  checkDisk(directory: string): Promise<{ missingMib: number }> {
    return checkDisk(diskPathOf(directory))
  }

  /**
   * Returns whether there is a snapshot that this host can restore, and the reason if not. Throws if its disk is
   * damaged.
   */
  checkSnapshot(directory: string, template: Template): Promise<SnapshotCheck> {
    return checkSnapshot(directory, this.#starter.stateFingerprint(template))
  }

  /** Pauses the vCPUs; memory stays. */
  async pause(machine: Machine): Promise<void> {
    await (await this.#monitors.of(machine)).command("stop", {}, { deadlineMs: qmpDeadlineMs })
  }

  async resume(machine: Machine): Promise<void> {
    await (await this.#monitors.of(machine)).command("cont", {}, { deadlineMs: qmpDeadlineMs })
  }

  /** Returns whether its processors are paused, and whether because the host is out of space. */
  async haltOf(machine: Machine): Promise<Halt> {
    return this.#halts.read(await this.#monitors.of(machine))
  }

  /**
   * Writes a paused machine's memory and device state beside its disk, or to `directory` for a copy. The machine stays
   * paused and can be resumed. The signal cancels the save.
   */
  async saveSnapshot(
    machine: Machine,
    options: { directory?: string; signal?: AbortSignal } = {},
  ): Promise<void> {
    await saveSnapshot(machine, { monitor: await this.#monitors.of(machine), halts: this.#halts }, options)
  }

  removeSnapshot(directory: string): Promise<void> {
    return removeSnapshot(directory)
  }

  agentSocket(directory: string): string {
    return agentSocket(directory)
  }

  openSharedMemory(machine: Machine): number {
    return openSharedMemory(machine.process)
  }

  isRunning(machine: Machine): boolean {
    return isAlive(machine.process)
  }

  /** Returns whether the process exits within the deadline. A machine closes its sockets a moment before it exits. */
  async endsWithin(machine: Machine, options: { deadlineMs: number }): Promise<boolean> {
    return isGoneWithin(machine.process, options)
  }

  /** Finds the running machine of a directory, in case a crash prevented its identity from being stored. */
  findIn(directory: string): Machine | undefined {
    const [process] = findMachine(directory, this.#starter.traits)
    return process && { process, directory, memoryBase: memoryBaseOf(process.pid) }
  }

  /** Processor time the machine has used so far. */
  cpuMs(machine: Machine): number {
    return processCpuMs(machine.process)
  }

  async untouchedMib({ process, memoryBase }: Machine): Promise<number | undefined> {
    return memoryBase === "empty" ? untouchedMib(process.pid) : undefined
  }

  trafficBytes(machine: Machine, tapName: string | undefined): { disk: number; network: number } {
    return {
      disk: processIoBytes(machine.process),
      network: tapName === undefined ? 0 : interfaceBytes(tapName),
    }
  }

  availableMemoryMib(): number {
    return availableMemoryMib({ groups: this.#cgroups.areUsed ? "outermost" : "own" })
  }

  /** Does nothing unless the change can be undone. */
  setUrgency(machine: Machine, urgency: "normal" | "background"): void {
    if (process.getuid?.() !== 0) return
    const niceness = urgency === "normal" ? machineNiceness : backgroundNiceness
    setNiceness(machine.process, niceness)
    this.#cgroups.setNiceness(groupOf(machine.directory), niceness)
  }

  /** Returns how it ended, if its guest ended it, with the last of its console. */
  async endOf(machine: Machine): Promise<{ how: GuestEnd["how"]; console: string } | undefined> {
    const end = await readEnd(machine.directory)
    const { pid, startTicks, bootId } = machine.process
    const isIts =
      end?.process.pid === pid && end.process.startTicks === startTicks && end.process.bootId === bootId
    return end && isIts ? { how: end.how, console: end.console } : undefined
  }

  /** Returns the end of the sandbox's last machine, while it is known. */
  async lastEndIn(directory: string): Promise<{ how: GuestEnd["how"]; console: string } | undefined> {
    return readEnd(directory)
  }

  /** Returns whether the kernel killed an exited machine for lack of memory. Call before `kill`, which tidies up. */
  async ranOutOfMemory(machine: Machine): Promise<boolean> {
    return (
      this.#cgroups.ranOutOfMemory(groupOf(machine.directory)) ||
      wasKilledForMemory(await readKernelLog(), machine.process)
    )
  }

  async kill(machine: Machine): Promise<void> {
    this.#monitors.forget(machine)
    await killProcess(machine.process, { deadlineMs: killDeadlineMs })
    this.#stderr.forget(machine.process)
    this.#cgroups.remove(groupOf(machine.directory))
  }

  /** Kills every process of the directory's machine, in case a crash left no other trace of it. */
  async killIn(directory: string): Promise<void> {
    for (const identity of findAllOfMachine(directory, this.#starter.traits))
      await killProcess(identity, { deadlineMs: killDeadlineMs })
    this.#cgroups.remove(groupOf(directory))
  }

  /** Slots that no new sandbox may get, whatever the database says: running processes have their user ids. */
  slotsInUse(): number[] {
    return slotsInUse(this.#starter.traits.uidBase)
  }

  /** Grows a running machine's disk to the size it was started for, and notifies its guest. */
  async growDisk(machine: Machine, diskMib: number): Promise<void> {
    const resize = { "node-name": "root", size: diskMib * mebibyte }
    await (await this.#monitors.of(machine)).command("block_resize", resize, { deadlineMs: qmpDeadlineMs })
  }

  /** The end of QEMU's output and of the guest's console, which may explain a machine's failure. For the log. */
  async diagnose(machine: Machine): Promise<{ qemu: string; console: string }> {
    return { qemu: this.#stderr.lastOf(machine.process), console: await this.#monitors.readConsole(machine) }
  }

  async #startAt(...parameters: Parameters<Starter["startAt"]>): Promise<Machine> {
    const machine = await this.#starter.startAt(...parameters)
    // Connects so that the end is noticed. The connection is not awaited; if it fails, the next command reconnects.
    this.#monitors.of(machine).catch(() => undefined)
    return machine
  }
}

/**
 * Name for a template's machine while it is made; the random part of its directory's name distinguishes
 * installations.
 */
function templateMachineName(directory: string): string {
  return `bhatti-template-${basename(directory)}`
}

async function writePipe(fd: number, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    done += await new Promise<number>((resolve, reject) =>
      write(fd, bytes, done, bytes.length - done, null, (error, count) =>
        error ? reject(error) : resolve(count),
      ),
    )
  }
}
