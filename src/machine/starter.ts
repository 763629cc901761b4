/** Starts QEMU in its jail and control group, with the descriptors that it gets instead of files' names. */

import { closeSync, constants, existsSync, openSync } from "node:fs"
import { basename, join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { listenUnix, openTap } from "../lib/posix.ts"
import type { ProcessIdentity } from "../lib/process-identity.ts"
import { diskPathOf } from "./bound-disk.ts"
import type { Cgroups } from "./cgroups.ts"
import {
  type Accelerator,
  type descriptors,
  type MachineShape,
  qemuArguments,
  type Role,
  type Topology,
} from "./command-line.ts"
import { savedFlags, savedStatePath } from "./device-state.ts"
import { fileBytesMax } from "./file-bounds.ts"
import type { ProcessTraits } from "./find-processes.ts"
import { stateFingerprint, templateFingerprint } from "./fingerprint.ts"
import type { KeptQemu, KeptQemus } from "./kept-qemu.ts"
import { kvmAccess } from "./kvm-device.ts"
import { diskArguments, openDisk, type PluggedDisk } from "./plugged-disks.ts"
import { type Confinement, spawnQemu } from "./process.ts"
import type { SnapshotManifest } from "./saved-memory.ts"
import { makeSharedMemory } from "./shared-memory.ts"
import type { Sockets } from "./sockets.ts"
import { makeStderrPipe, readStderr, reopenStderr, type StderrPipes } from "./stderr.ts"
import type { Template, TemplateSpec } from "./template-files.ts"
import { freeZygoteSlot } from "./user-ids.ts"
import { zygoteSocket } from "./zygote-control.ts"

/** The slot of machines without a sandbox. */
export const templateSlot = 0

/** A QEMU process as its owner sees it; a restarted daemon recognises it by `process`. */
export type Machine = {
  process: ProcessIdentity
  /** Files of the machine: sockets, log, snapshot. */
  directory: string
  /** Source of its memory mapping; a snapshot stores the difference to it. */
  memoryBase: "template" | "empty"
}

/** Resources for a machine that is about to start. */
export type MachineResources = {
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
  /** The build that runs it. Default: the present one. */
  qemu?: KeptQemu
  /** Path of the kit disk below the data directory. Without one its topology is 2. */
  kit: string | undefined
  disks?: readonly PluggedDisk[]
}

type Files = Partial<Record<keyof typeof descriptors, number>>

export type OpenFile = (path: string, flags: number) => number

export type StarterOptions = {
  qemus: KeptQemus
  accelerator: Accelerator
  network: MachineShape["network"]
  /** First of the user ids that QEMU processes run as; if undefined, they run as the daemon's own user. */
  uidBase: number | undefined
  /** The program that starts QEMU. */
  launcher: string
  dataDir: string
  confinement: Confinement["level"]
  cgroups: Cgroups
}

export type ForkMeans = { files: Files; output: number; confinement: Confinement }

/** `memory` is the template's; `library` is loaded into QEMU. Both stay the caller's. */
type ZygoteResources = Pick<
  MachineResources,
  "template" | "name" | "directory" | "sockets" | "slot" | "tapName"
> & {
  library: number
  memory: number
}

/** Each machine that is forked from it has its own limit. */
const zygoteFileBytes = Number.MAX_SAFE_INTEGER

type Start = {
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
  qemu?: KeptQemu
  kit: string | undefined
  disks?: readonly PluggedDisk[]
  /** Descriptors of a zygote, which follow. */
  further?: number[]
  /** Makes the process instead of a new QEMU. */
  fork?: (means: ForkMeans) => Promise<ProcessIdentity>
}

export class Starter {
  readonly #options: StarterOptions
  readonly #stderr: StderrPipes

  constructor(options: StarterOptions, stderr: StderrPipes) {
    this.#options = options
    this.#stderr = stderr
  }

  get network(): MachineShape["network"] {
    return this.#options.network
  }

  async startAt(
    resources: MachineResources & { kernelArguments?: string[] },
    role: Role,
    memoryBase: Machine["memoryBase"],
    files: (open: OpenFile) => Files,
  ): Promise<Machine> {
    const { template, ...rest } = resources
    return this.start({
      ...rest,
      role,
      shape: template.shape,
      memoryBase,
      files: (open) => ({
        ...diskFiles(open, template, resources.overlayPath),
        saved: open(savedStatePath(resources.directory), savedFlags),
        ...files(open),
      }),
    })
  }

  /** Starts a QEMU that machines are forked from. */
  async startZygote({ template, library, memory, ...rest }: ZygoteResources): Promise<Machine> {
    const control = listenUnix(zygoteSocket(rest.directory), "packets")
    try {
      return await this.start({
        ...rest,
        role: "zygote",
        shape: template.shape,
        memoryBase: "template",
        diskMib: template.diskMib,
        kit: template.kit,
        further: [library, control],
        files: (open) => ({
          ...diskFiles(open, template, diskPathOf(rest.directory)),
          saved: open(savedStatePath(rest.directory), savedFlags),
          memory,
          state: open(template.statePath, constants.O_RDONLY),
        }),
      })
    } finally {
      closeSync(control)
    }
  }

  /** Like the start of a clone, by a fork instead of a new process. `state`, for saved memory, stays the caller's. */
  async startForked(
    { template, state, ...rest }: MachineResources & { state?: number },
    fork: (means: ForkMeans) => Promise<ProcessIdentity>,
  ): Promise<Machine> {
    return this.start({
      ...rest,
      role: "clone",
      shape: template.shape,
      memoryBase: "template",
      files: (open) => ({
        overlayDisk: open(rest.overlayPath, constants.O_RDWR),
        saved: open(savedStatePath(rest.directory), savedFlags),
        ...(state !== undefined && { state }),
      }),
      fork,
    })
  }

  async start(options: Start): Promise<Machine> {
    const { qemus } = this.#options
    const { qemu = qemus.present, kit, disks = [] } = options
    qemus.checkPresent()
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
      const stderr = makeStderrPipe()
      const pipe = reopenStderr(stderr.readFd)
      opened.push(stderr.readFd, stderr.writeFd, pipe)
      const further = openDisks(disks)
      opened.push(...further.fds)
      const files = {
        qmpSocket: options.sockets.qmp,
        agentSocket: options.sockets.agent,
        ...options.files(open),
        shared,
        stderr: stderr.readFd,
        ...(tap !== undefined && { tap }),
      }
      const confinement = {
        ...this.#confinement(options.slot, qemu),
        isZygote: options.role === "zygote",
        cgroup: this.#options.cgroups.make(groupOf(options.directory), options.shape),
        fileBytesMax:
          options.role === "zygote"
            ? zygoteFileBytes
            : Math.max(fileBytesMax(options.diskMib), further.longestBytes),
      }
      const means = { files, output: stderr.writeFd, confinement }
      const process = options.fork
        ? await options.fork(means)
        : await this.#spawn(options, qemu, {
            ...means,
            ...(kit !== undefined && {
              files: { ...files, kitDisk: open(join(this.#options.dataDir, kit), constants.O_RDONLY) },
            }),
            disks: [...further.fds, ...(options.further ?? [])],
            lastWords: () => readStderr(pipe)?.toString() ?? "",
          })
      this.#stderr.listen(process, stderr.readFd)
      return { process, directory: options.directory, memoryBase: options.memoryBase }
    } finally {
      for (const fd of opened) closeSync(fd)
      options.sockets[Symbol.dispose]()
    }
  }

  #spawn(
    { role, shape, name, kit, disks = [], kernelArguments = [] }: Start,
    qemu: KeptQemu,
    means: ForkMeans & { disks: number[]; lastWords: () => string },
  ): Promise<ProcessIdentity> {
    const topology = topologyOf(kit)
    return spawnQemu({
      ...means,
      binary: qemu.binary,
      arguments: qemuArguments(shape, role, name, { topology, disks: diskArguments(disks), kernelArguments }),
      isZygote: role === "zygote",
      facts: {
        stateFingerprint: stateFingerprint(qemu, this.shape(shape), topology),
        qemuId: qemu.id,
        kit,
      },
    })
  }

  shape(spec: { cpus: number; memoryMib: number }): MachineShape {
    return {
      cpus: spec.cpus,
      memoryMib: spec.memoryMib,
      accelerator: this.#options.accelerator,
      network: this.network,
    }
  }

  templateFingerprint(spec: TemplateSpec): string {
    return templateFingerprint({
      qemu: this.#options.qemus.present,
      shape: this.shape(spec),
      kernelHash: spec.kernel.hash,
      kitHash: spec.kernel.kit?.hash,
      imageHash: spec.image.hash,
      authority: spec.authority,
      programs: spec.programs,
    })
  }

  /** Returns the build that loads the snapshot of a machine of this template, or the reason why none does. */
  qemuFor(
    template: Template,
    { stateFingerprint: saved, qemu, kit }: Pick<SnapshotManifest, "stateFingerprint" | "qemu" | "kit">,
  ): Promise<{ qemu: KeptQemu } | { reason: string }> {
    const shape = this.shape(template.shape)
    const topology = topologyOf(kit)
    if (kit !== undefined && !existsSync(join(this.#options.dataDir, kit)))
      return Promise.resolve({ reason: `the disk ${kit}, which its memory was saved with, is missing` })
    return this.#options.qemus.choose((one) => stateFingerprint(one, shape, topology) === saved, qemu)
  }

  get traits(): ProcessTraits {
    return {
      qemu: basename(this.#options.qemus.present.binary),
      launcher: basename(this.#options.launcher),
      uidBase: this.#options.uidBase,
    }
  }

  /** Returns the slot of a zygote that starts now. Throws where machines cannot be forked. */
  zygoteSlot(): number {
    const { confinement, uidBase } = this.#options
    if (confinement === "full" && uidBase !== undefined) return freeZygoteSlot(uidBase)
    throw new AppError(
      "unavailable",
      "machines are forked only where each has a user and namespaces of its own",
      {
        hint: "run the daemon as root, with confinement: full",
        retryable: false,
      },
    )
  }

  #confinement(slot: number, { root }: KeptQemu): Omit<Confinement, "cgroup" | "fileBytesMax"> {
    const [level, uid] = [
      this.#options.confinement,
      this.#options.uidBase === undefined ? undefined : this.#options.uidBase + slot,
    ]
    const { devices, ...access } =
      this.#options.accelerator === "kvm" ? kvmAccess({ uid, level }) : { groups: [], devices: [] }
    const isAlone = slot !== templateSlot
    const jail = { launcher: this.#options.launcher, root }
    return { jail, level, uid, isAlone, ...access, devices: ["/dev/null", ...devices] }
  }
}

function diskFiles(open: OpenFile, template: Template, overlayPath: string): Files {
  return {
    overlayDisk: open(overlayPath, constants.O_RDWR),
    templateDisk: open(template.diskPath, constants.O_RDONLY),
    baseDisk: open(template.baseDiskPath, constants.O_RDONLY),
  }
}

/** The longest is of those that may be written. */
function openDisks(disks: readonly PluggedDisk[]): { fds: number[]; longestBytes: number } {
  const fds: number[] = []
  let longestBytes = 0
  try {
    for (const disk of disks) {
      const { fd, bytes } = openDisk(disk)
      fds.push(fd)
      if (!disk.isReadOnly) longestBytes = Math.max(longestBytes, bytes)
    }
  } catch (error) {
    for (const fd of fds) closeSync(fd)
    throw error
  }
  return { fds, longestBytes }
}

function topologyOf(kit: string | undefined): Topology {
  return kit === undefined ? 2 : 3
}

export function openKernel(kernel: { vmlinux: string; initramfs: string }, open: OpenFile): Files {
  return {
    kernel: open(kernel.vmlinux, constants.O_RDONLY),
    initramfs: open(kernel.initramfs, constants.O_RDONLY),
  }
}

/** The name of a machine's control group: the sandbox's id. */
export function groupOf(directory: string): string {
  return basename(directory)
}
