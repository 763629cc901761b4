/**
 * Machines on this host: start one (as a clone of a template, from its own snapshot, or from its disk), pause it,
 * save it, find it again, kill it. Knows nothing about the guest's contents or about when to do any of this.
 *
 *   template ──clone──► running ◄──resume/pause──► paused ──save──► snapshot ──restore──► running
 *                          └──(QEMU ends)──► disk only ──boot──► running
 */

import { closeSync, constants, openSync, write } from "node:fs"
import { mkdir, open, readFile, rename, rm, writeFile } from "node:fs/promises"
import { basename, join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { availableMemoryMib } from "../lib/available-memory.ts"
import { publish, syncPath } from "../lib/durable.ts"
import { errorCodeOf } from "../lib/error-code.ts"
import { createPipe, openTap, readAhead } from "../lib/posix.ts"
import { hostBootId, isAlive, type ProcessIdentity } from "../lib/process-identity.ts"
import { randomHex } from "../lib/random-hex.ts"
import { bindDisk, checkDisk, diskPathOf, isBoundDisk } from "./bound-disk.ts"
import type { Cgroups } from "./cgroups.ts"
import {
  type Accelerator,
  type descriptors,
  type MachineShape,
  qemuArguments,
  type Role,
} from "./command-line.ts"
import { saveDeviceState, savedFlags, savedStatePath } from "./device-state.ts"
import { type End, readEnd, watchEnd } from "./ends.ts"
import { fileBytesMax } from "./file-bounds.ts"
import { findAllOfMachine, findMachine, type Ground, slotsInUse } from "./find-processes.ts"
import { type QemuBuild, stateFingerprint, templateFingerprint } from "./fingerprint.ts"
import { diskFull, isFull } from "./full-disk.ts"
import { type Halt, Halts } from "./halt.ts"
import type { Jail } from "./jail.ts"
import { kvmAccess } from "./kvm-device.ts"
import { readKernelLog, wasKilledForMemory } from "./out-of-memory.ts"
import { loadOwnMemory, memoryBaseOf, saveOwnMemory, untouchedMib } from "./own-memory.ts"
import {
  type Confinement,
  interfaceBytes,
  isGoneWithin,
  killProcess,
  machineNiceness,
  processCpuMs,
  processIoBytes,
  setNiceness,
  spawnQemu,
  stateFingerprintOf,
} from "./process.ts"
import { Qmp } from "./qmp.ts"
import { makeSharedMemory, openSharedMemory } from "./shared-memory.ts"
import {
  manifestName,
  manifestText,
  readSnapshot,
  removeSnapshot,
  type SnapshotManifest,
  snapshotDirectory,
  unfinished,
} from "./snapshot-files.ts"
import { agentSocket, closeSockets, listenSockets, qmpSocket, type Sockets } from "./sockets.ts"
import { sha256, type Template, type TemplateDraft, type TemplateSpec, Templates } from "./templates.ts"
import { emptyWordFiles } from "./word-files.ts"
import { makeWordsPipe, openEar, takeWords, Words } from "./words.ts"

const qmpDeadlineMs = 10_000
/** Limit on the guest's console in the log. */
const consoleBytes = 8192
const killDeadlineMs = 10_000
const refusedPauseMs = 20
/** Low, but high enough that the work still runs on a host whose sandboxes all compute. */
const backgroundNiceness = 10
const mebibyte = 1024 * 1024
/** The slot of machines without a sandbox. */
const templateSlot = 0

/** A QEMU process as its owner sees it; a restarted daemon recognises it by `process`. */
export type Machine = {
  process: ProcessIdentity
  /** Files of the machine: sockets, log, snapshot. */
  directory: string
  /** Source of its memory mapping; a snapshot stores the difference to it. */
  memoryBase: "template" | "empty"
}

/** Resources for a machine that is about to start. */
export type Place = {
  template: Template
  /** The sandbox's id, shown in the host's list of processes. */
  name: string
  directory: string
  overlayPath: string
  sockets: Sockets
  /** Index of this machine's reserved user id. */
  slot: number
  tapName: string | undefined
  /** Size of its disk; limits every file that QEMU writes to. */
  diskMib: number
}

type Files = Partial<Record<keyof typeof descriptors, number>>

export class Machines {
  readonly bootId = hostBootId
  readonly templates: Templates
  readonly #dataDir: string
  readonly #qemu: QemuBuild
  readonly #accelerator: Accelerator
  readonly #network: MachineShape["network"]
  readonly #uidBase: number | undefined
  readonly #jail: Jail
  readonly #level: Confinement["level"]
  readonly #cgroups: Cgroups
  readonly #monitors = new Map<number, Promise<Qmp>>()
  readonly #words = new Words()
  readonly #halts = new Halts({ deadlineMs: qmpDeadlineMs })

  constructor(options: {
    dataDir: string
    qemu: QemuBuild
    accelerator: Accelerator
    network: MachineShape["network"]
    /** First of the user ids that QEMU processes run as; if undefined, they run as the daemon's own user. */
    uidBase: number | undefined
    jail: Jail
    confinement: Confinement["level"]
    cgroups: Cgroups
    /** Called for damaged files that are taken out of use. */
    onDamage: (error: AppError) => void
  }) {
    this.templates = new Templates(options.dataDir, options.onDamage)
    this.#dataDir = options.dataDir
    this.#qemu = options.qemu
    this.#accelerator = options.accelerator
    this.#network = options.network
    this.#uidBase = options.uidBase
    this.#jail = options.jail
    this.#level = options.confinement
    this.#cgroups = options.cgroups
  }

  findTemplate(spec: TemplateSpec): Promise<Template | undefined> {
    return this.templates.find(this.#templateFingerprint(spec))
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
      fingerprint: this.#templateFingerprint(spec),
      shape: this.#shape(spec),
      spec,
    })
  }

  /** Boots the draft's image; its disks must exist. */
  async bootTemplate(draft: TemplateDraft, spec: TemplateSpec, sockets: Sockets): Promise<Machine> {
    return this.#start({
      role: "template",
      diskMib: spec.image.diskMib,
      shape: this.#shape(spec),
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
      tapName: this.#network === "tap" ? `bht${randomHex(4)}` : undefined,
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
    await emptyWordFiles(join(this.#dataDir, "sandboxes"))
    for (const directory of this.templates.listUnfinished()) {
      await this.killIn(directory)
      await rm(directory, { recursive: true, force: true })
    }
  }

  /** Listens on behalf of a machine that is about to start. The guest's channel must be connected before that. */
  prepareSockets(directory: string): Promise<Sockets> {
    return listenSockets(directory)
  }

  /** Starts a clone of the template, which runs as soon as its state is loaded. Closes `place.sockets`. */
  async clone(place: Place): Promise<Machine> {
    const memory = await this.templates.memory(place.template)
    return this.#startAt(place, "clone", "template", (open) => ({
      memory,
      state: open(place.template.statePath, constants.O_RDONLY),
    }))
  }

  /** Boots the sandbox from its own disk. */
  async boot(
    place: Place,
    kernel: { vmlinux: string; initramfs: string; arguments?: string[] },
  ): Promise<Machine> {
    const memory = this.templates.emptyMemory()
    const kernelArguments = kernel.arguments ?? []
    return this.#startAt({ ...place, kernelArguments }, "boot", "empty", (open) => ({
      memory,
      ...openKernel(kernel, open),
    }))
  }

  /** Starts the machine as `saveSnapshot` left it; it runs when this returns. The snapshot must have been checked. */
  async restore(place: Place): Promise<Machine> {
    const directory = snapshotDirectory(place.directory)
    const found = await readSnapshot(directory)
    if ("damage" in found) throw new AppError("unavailable", found.damage, { retryable: false })
    const { manifest } = found
    readAhead(join(directory, "memory"))
    const state = await readFile(join(directory, "state"))
    const base = manifest.memoryBase === "template" ? await this.templates.memory(place.template) : undefined
    const memory = base ?? this.templates.emptyMemory()

    // QEMU waits at the other end of a pipe for its state until the matching memory is in place.
    const pipe = createPipe()
    let machine: Machine
    try {
      machine = await this.#startAt(place, "clone", manifest.memoryBase, () => ({
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
      await this.#monitor(machine)
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
  async checkSnapshot(
    directory: string,
    template: Template,
  ): Promise<{ fits: true; memoryMib: number } | { fits: false; reason: string }> {
    const found = await readSnapshot(snapshotDirectory(directory))
    if ("damage" in found) return { fits: false, reason: found.damage }
    const { manifest } = found
    if (manifest.disk && !(await isBoundDisk(diskPathOf(directory), manifest.disk))) {
      return {
        fits: false,
        reason: "its disk is not the one that its memory belongs to: disk.qcow2 is an older or another copy",
      }
    }
    if (manifest.stateFingerprint !== this.#stateFingerprint(template)) {
      return {
        fits: false,
        reason: "its memory snapshot was made by another QEMU or bhatti, or on another CPU",
      }
    }
    return { fits: true, memoryMib: Math.ceil(manifest.memory.bytes / 1024 / 1024) }
  }

  /** Pauses the vCPUs; memory stays. */
  async pause(machine: Machine): Promise<void> {
    await (await this.#monitor(machine)).command("stop", {}, { deadlineMs: qmpDeadlineMs })
  }

  async resume(machine: Machine): Promise<void> {
    await (await this.#monitor(machine)).command("cont", {}, { deadlineMs: qmpDeadlineMs })
  }

  /** Returns whether its processors are paused, and whether because the host is out of space. */
  async haltOf(machine: Machine): Promise<Halt> {
    return this.#halts.read(await this.#monitor(machine))
  }

  /**
   * Writes a paused machine's memory and device state beside its disk, or to `directory` for a copy; the caller
   * then syncs the files after the machine has resumed. The machine stays paused and can be resumed. The signal
   * cancels the save.
   */
  async saveSnapshot(
    machine: Machine,
    options: { directory?: string; signal?: AbortSignal } = {},
  ): Promise<void> {
    const isCopy = options.directory !== undefined
    const final = snapshotDirectory(options.directory ?? machine.directory)
    const beside = unfinished(final)
    await using undo = new AsyncDisposableStack()
    await rm(beside, { recursive: true, force: true })
    await mkdir(beside, { mode: 0o700 })
    undo.defer(() => rm(beside, { recursive: true, force: true }))

    // The fingerprint it was started with: another build or another QEMU may have started it.
    const startedAs = stateFingerprintOf(machine.process.pid)
    // The guest's pending writes may not be on the disk yet.
    if ((await this.haltOf(machine)) === "disk_full") throw diskFull()
    const state = await saveDeviceState(machine, await this.#monitor(machine))
    await writeFile(join(beside, "state"), state, { flag: "wx", mode: 0o600 })

    const file = await open(join(beside, "memory"), "wx", 0o600)
    let memory: { bytes: number; checksum: string }
    try {
      memory = await saveOwnMemory({ pid: machine.process.pid, fd: file.fd, signal: options.signal })
    } finally {
      await file.close()
    }
    // QEMU flushes its disk's tables again without reporting errors; the flush succeeds if there is space.
    await this.pause(machine)
    if (await isFull(machine.directory)) throw diskFull()
    const manifest: SnapshotManifest = {
      stateFingerprint: startedAs ?? "unknown",
      memoryBase: machine.memoryBase,
      state: { bytes: state.length, sha256: sha256(state) },
      memory,
      disk: await bindDisk(diskPathOf(machine.directory)),
    }
    await writeFile(join(beside, manifestName), manifestText(manifest), { flag: "wx", mode: 0o600 })
    if (isCopy) {
      await rename(beside, final)
    } else {
      // Syncing them together waits for one journal commit of the file system instead of one each.
      const parts = ["state", "memory", manifestName].map((name) => join(beside, name))
      await Promise.all([...parts, diskPathOf(machine.directory)].map(syncPath))
      await rm(final, { recursive: true, force: true })
      await publish(beside, final)
    }
    undo.move()
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
    const [process] = findMachine(directory, this.#ground)
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
  async endOf(machine: Machine): Promise<{ how: End["how"]; console: string } | undefined> {
    const end = await readEnd(machine.directory)
    const { pid, startTicks, bootId } = machine.process
    const isIts =
      end?.process.pid === pid && end.process.startTicks === startTicks && end.process.bootId === bootId
    return end && isIts ? { how: end.how, console: end.console } : undefined
  }

  /** Returns the end of the sandbox's last machine, while it is known. */
  async lastEndIn(directory: string): Promise<{ how: End["how"]; console: string } | undefined> {
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
    this.#forgetMonitor(machine)
    await killProcess(machine.process, { deadlineMs: killDeadlineMs })
    this.#words.forget(machine.process)
    this.#cgroups.remove(groupOf(machine.directory))
  }

  /** Kills every process of the directory's machine, in case a crash left no other trace of it. */
  async killIn(directory: string): Promise<void> {
    for (const identity of findAllOfMachine(directory, this.#ground))
      await killProcess(identity, { deadlineMs: killDeadlineMs })
    this.#cgroups.remove(groupOf(directory))
  }

  /** Slots that no new sandbox may get, whatever the database says: running processes have their user ids. */
  slotsInUse(): number[] {
    return slotsInUse(this.#uidBase)
  }

  /** Grows a running machine's disk to the size it was started for, and notifies its guest. */
  async growDisk(machine: Machine, diskMib: number): Promise<void> {
    const resize = { "node-name": "root", size: diskMib * mebibyte }
    await (await this.#monitor(machine)).command("block_resize", resize, { deadlineMs: qmpDeadlineMs })
  }

  /** The end of QEMU's output and of the guest's console, which may explain a machine's failure. For the log. */
  async diagnose(machine: Machine): Promise<{ qemu: string; console: string }> {
    return { qemu: this.#words.lastOf(machine.process), console: await this.#readConsole(machine) }
  }

  async #startAt(
    place: Place & { kernelArguments?: string[] },
    role: Role,
    memoryBase: Machine["memoryBase"],
    files: (open: OpenFile) => Files,
  ): Promise<Machine> {
    const { template, ...rest } = place
    const machine = await this.#start({
      ...rest,
      role,
      shape: template.shape,
      memoryBase,
      files: (open) => ({
        overlayDisk: open(place.overlayPath, constants.O_RDWR),
        templateDisk: open(template.diskPath, constants.O_RDONLY),
        baseDisk: open(template.baseDiskPath, constants.O_RDONLY),
        saved: open(savedStatePath(place.directory), savedFlags),
        ...files(open),
      }),
    })
    // Connects so that the end is noticed. The connection is not awaited; if it fails, the next command reconnects.
    this.#monitor(machine).catch(() => undefined)
    return machine
  }

  async #start(options: {
    role: Role
    shape: MachineShape
    name: string
    slot: number
    directory: string
    sockets: Sockets
    memoryBase: Machine["memoryBase"]
    /** Added to those of every boot. */
    kernelArguments?: string[]
    files: (open: OpenFile) => Files
    tapName: string | undefined
    diskMib: number
  }): Promise<Machine> {
    const opened: number[] = []
    const open: OpenFile = (path, flags) => {
      const fd = openSync(path, flags, 0o600)
      opened.push(fd)
      return fd
    }
    try {
      const tap = options.tapName === undefined ? undefined : openTap(options.tapName)
      if (tap !== undefined) opened.push(tap)
      const shared = makeSharedMemory()
      opened.push(shared)
      const words = makeWordsPipe()
      const ear = openEar(words.readFd)
      opened.push(words.readFd, words.writeFd, ear)
      const process = await spawnQemu({
        binary: this.#qemu.binary,
        arguments: qemuArguments(options.shape, options.role, options.name, options.kernelArguments),
        files: {
          qmpSocket: options.sockets.qmp,
          agentSocket: options.sockets.agent,
          ...options.files(open),
          shared,
          words: words.readFd,
          ...(tap !== undefined && { tap }),
        },
        confinement: {
          ...this.#confinement(options.slot),
          cgroup: this.#cgroups.make(groupOf(options.directory), options.shape),
          fileBytesMax: fileBytesMax(options.diskMib),
        },
        output: words.writeFd,
        lastWords: () => takeWords(ear)?.toString() ?? "",
        stateFingerprint: stateFingerprint(this.#qemu, this.#shape(options.shape)),
      })
      this.#words.listen(process, words.readFd)
      return { process, directory: options.directory, memoryBase: options.memoryBase }
    } finally {
      for (const fd of opened) closeSync(fd)
      closeSockets(options.sockets)
    }
  }

  /** Keeps one connection per machine: a monitor serves one client at a time. */
  async #monitor(machine: Machine): Promise<Qmp> {
    const { pid } = machine.process
    const known = await this.#monitors.get(pid)?.catch(() => undefined)
    if (known && !known.isClosed) return known
    const opening = this.#openMonitor(machine)
    this.#monitors.set(pid, opening)
    opening.catch(() => this.#monitors.delete(pid))
    return opening
  }

  async #openMonitor(machine: Machine): Promise<Qmp> {
    const monitor = await openMonitor(machine)
    if (!(await watchEnd(machine, monitor, () => this.#endMachine(machine)))) return monitor
    throw new AppError("unavailable", "the machine was ended by its guest")
  }

  /** The guest has ended the machine. Other code sees the end of the process. */
  async #endMachine(machine: Machine): Promise<void> {
    this.#forgetMonitor(machine)
    await killProcess(machine.process, { deadlineMs: killDeadlineMs }).catch(() => undefined)
  }

  #forgetMonitor(machine: Machine): void {
    const monitor = this.#monitors.get(machine.process.pid)
    this.#monitors.delete(machine.process.pid)
    monitor?.then(
      (qmp) => qmp.close(),
      () => undefined,
    )
  }

  async #readConsole(machine: Machine): Promise<string> {
    if (!isAlive(machine.process)) return ""
    try {
      const monitor = await this.#monitor(machine)
      return String(
        await monitor.command(
          "ringbuf-read",
          { device: "console", size: consoleBytes },
          { deadlineMs: 2000 },
        ),
      )
    } catch (error) {
      if (error instanceof AppError) return ""
      throw error
    }
  }

  get #ground(): Ground {
    return {
      qemu: basename(this.#qemu.binary),
      launcher: basename(this.#jail.launcher),
      uidBase: this.#uidBase,
    }
  }

  #shape(spec: { cpus: number; memoryMib: number }): MachineShape {
    return {
      cpus: spec.cpus,
      memoryMib: spec.memoryMib,
      accelerator: this.#accelerator,
      network: this.#network,
    }
  }

  #templateFingerprint(spec: TemplateSpec): string {
    return templateFingerprint({
      qemu: this.#qemu,
      shape: this.#shape(spec),
      kernelHash: spec.kernel.hash,
      imageHash: spec.image.hash,
      authority: spec.authority,
    })
  }

  /** The host's present fingerprint, which an older template may not match. */
  #stateFingerprint(template: Template): string {
    return stateFingerprint(this.#qemu, this.#shape(template.shape))
  }

  #confinement(slot: number): Omit<Confinement, "cgroup" | "fileBytesMax"> {
    const [level, uid] = [this.#level, this.#uidBase === undefined ? undefined : this.#uidBase + slot]
    const { devices, ...access } =
      this.#accelerator === "kvm" ? kvmAccess({ uid, level }) : { groups: [], devices: [] }
    const isAlone = slot !== templateSlot
    return { jail: this.#jail, level, uid, isAlone, ...access, devices: ["/dev/null", ...devices] }
  }
}

/** Retries while the socket's queue is full of abandoned connections that QEMU has not accepted yet. */
async function openMonitor(machine: Machine): Promise<Qmp> {
  const endMs = performance.now() + qmpDeadlineMs
  for (;;) {
    try {
      return await Qmp.open({ socketPath: qmpSocket(machine.directory), deadlineMs: qmpDeadlineMs })
    } catch (error) {
      const isRefused = error instanceof AppError && errorCodeOf(error.cause) === "ECONNREFUSED"
      if (!isRefused || !isAlive(machine.process) || performance.now() > endMs) throw error
      await Bun.sleep(refusedPauseMs)
    }
  }
}

type OpenFile = (path: string, flags: number) => number

function openKernel(kernel: { vmlinux: string; initramfs: string }, open: OpenFile): Files {
  return {
    kernel: open(kernel.vmlinux, constants.O_RDONLY),
    initramfs: open(kernel.initramfs, constants.O_RDONLY),
  }
}

/** The name of a machine's control group: the sandbox's id. */
function groupOf(directory: string): string {
  return basename(directory)
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
