/**
 * Machines and their templates on this host: boot one, save it, clone it, find a running one again, kill it. What
 * happens inside the guest, and when any of this is done, is not known here.
 *
 *   boot ──(guest quiesced)──► save ──► template: sealed memory + device state + frozen disk
 *                                          └── clone, clone, clone …
 */

import { closeSync, constants, openSync, readdirSync, rmSync, statSync } from "node:fs"
import { mkdir, open, readFile, rename, rm } from "node:fs/promises"
import { join } from "node:path"
import { AppError } from "../contract/errors.ts"
import { createMemoryFile, listenUnix, openTap } from "../lib/posix.ts"
import { type Accelerator, type MachineShape, qemuArguments, stateFile } from "./command-line.ts"
import { type FingerprintParts, fingerprint, type QemuBuild } from "./fingerprint.ts"
import { readMemory, writeMemory } from "./memory.ts"
import {
  type Confinement,
  findProcesses,
  isAlive,
  killProcess,
  type ProcessIdentity,
  spawnQemu,
} from "./process.ts"
import { Qmp } from "./qmp.ts"

const qmpDeadlineMs = 10_000
const killDeadlineMs = 10_000
const mebibyte = 1024 * 1024

export type MachineImage = { name: string; hash: string; file: string; diskMib: number }
export type MachineKernel = { hash: string; vmlinux: string; initramfs: string }
export type TemplateSpec = { image: MachineImage; kernel: MachineKernel; cpus: number; memoryMib: number }

export type Template = {
  fingerprint: string
  spec: TemplateSpec
  shape: MachineShape
  /** Sealed memory. */
  memoryFd: number
  statePath: string
  diskPath: string
  /** An empty overlay on the template's disk, to be copied for every clone. */
  blankOverlayPath: string
}

/** A running QEMU as its owner needs to know it; `process` is what a restarted daemon recognises it by. */
export type Machine = {
  process: ProcessIdentity
  /** Files of the machine: sockets and log. */
  directory: string
}

function agentSocket(directory: string): string {
  return join(directory, "agent.sock")
}

function qmpSocket(directory: string): string {
  return join(directory, "qmp.sock")
}

function logPath(directory: string): string {
  return join(directory, "qemu.log")
}

type TemplateManifest = {
  fingerprint: string
  parts: FingerprintParts
  files: { memory: { bytes: number }; state: { bytes: number; sha256: string } }
}

export class Machines {
  readonly #templatesDir: string
  readonly #qemu: QemuBuild
  readonly #accelerator: Accelerator
  readonly #network: MachineShape["network"]
  readonly #uidBase: number | undefined
  readonly #loaded = new Map<string, Promise<Template | undefined>>()
  readonly #children = new Map<number, Promise<number>>()

  constructor(options: {
    dataDir: string
    qemu: QemuBuild
    accelerator: Accelerator
    network: MachineShape["network"]
    /** First of the user ids that QEMU processes run as; without it they run as the daemon's own user. */
    uidBase: number | undefined
  }) {
    this.#templatesDir = join(options.dataDir, "templates")
    this.#qemu = options.qemu
    this.#accelerator = options.accelerator
    this.#network = options.network
    this.#uidBase = options.uidBase
  }

  /** The template if it exists and is whole; its memory is loaded once and kept. */
  async findTemplate(spec: TemplateSpec): Promise<Template | undefined> {
    const key = this.#fingerprint(spec).value
    const known = this.#loaded.get(key)
    if (known) return known
    const loading = this.#load(spec)
    this.#loaded.set(key, loading)
    try {
      const template = await loading
      if (!template) this.#loaded.delete(key)
      return template
    } catch (error) {
      this.#loaded.delete(key)
      throw error
    }
  }

  /** A place to make a template in; nothing of it is visible before `save`. */
  async beginTemplate(spec: TemplateSpec): Promise<TemplateBuild> {
    const { value, parts } = this.#fingerprint(spec)
    const directory = join(this.#templatesDir, `tmp-${value.slice(0, 8)}-${crypto.randomUUID().slice(0, 8)}`)
    await mkdir(directory, { recursive: true, mode: 0o700 })
    return new TemplateBuild({
      directory,
      finalDirectory: join(this.#templatesDir, value),
      spec,
      parts,
      fingerprint: value,
      spawn: (options) => this.#spawn(options),
      adopt: (template) => this.#loaded.set(value, Promise.resolve(template)),
    })
  }

  /** Listens on behalf of a machine that is about to start. The guest's channel must be connected before `clone`. */
  prepareSockets(directory: string): PreparedSockets {
    return prepareSockets(directory)
  }

  /** Starts a clone that runs as soon as its state is loaded. Closes `sockets` in any case: QEMU has them now. */
  clone(options: {
    template: Template
    /** What `killNamed` finds it by: the sandbox's id. */
    name: string
    directory: string
    overlayPath: string
    sockets: PreparedSockets
    /** Which of the reserved user ids this machine has. */
    slot: number
    tapName: string | undefined
  }): Machine {
    const { template } = options
    const opened: number[] = []
    const file = (path: string, flags: number) => {
      const fd = openSync(path, flags)
      opened.push(fd)
      return fd
    }
    try {
      const tap = options.tapName === undefined ? undefined : openTap(options.tapName)
      if (tap !== undefined) opened.push(tap)
      const identity = this.#spawn({
        arguments: qemuArguments(template.shape, "clone", options.name),
        directory: options.directory,
        slot: options.slot,
        files: {
          memory: template.memoryFd,
          qmpSocket: options.sockets.qmp,
          agentSocket: options.sockets.agent,
          overlayDisk: file(options.overlayPath, constants.O_RDWR),
          templateDisk: file(template.diskPath, constants.O_RDONLY),
          baseDisk: file(template.spec.image.file, constants.O_RDONLY),
          state: file(template.statePath, constants.O_RDONLY),
          ...(tap !== undefined && { tap }),
        },
      })
      return { process: identity, directory: options.directory }
    } finally {
      for (const fd of opened) closeSync(fd)
      closeSockets(options.sockets)
    }
  }

  agentSocket(directory: string): string {
    return agentSocket(directory)
  }

  isRunning(machine: Machine): boolean {
    return isAlive(machine.process)
  }

  async kill(machine: Machine): Promise<void> {
    await killProcess(machine.process, { deadlineMs: killDeadlineMs })
  }

  /** Ends every machine of that name, for when a crash left no other trace of it. */
  async killNamed(name: string): Promise<void> {
    for (const identity of findProcesses({ name }))
      await killProcess(identity, { deadlineMs: killDeadlineMs })
  }

  /** Tells a running guest that its disk has grown. */
  async growDisk(machine: Machine, diskMib: number): Promise<void> {
    const qmp = await Qmp.open({ socketPath: qmpSocket(machine.directory), deadlineMs: qmpDeadlineMs })
    try {
      await qmp.command(
        "block_resize",
        { "node-name": "root", size: diskMib * mebibyte },
        { deadlineMs: qmpDeadlineMs },
      )
    } finally {
      qmp.close()
    }
  }

  /** Why a machine may have failed: the end of QEMU's own words and of the guest's console. For the log. */
  async diagnose(machine: Machine): Promise<{ qemu: string; console: string }> {
    return { qemu: await tail(logPath(machine.directory)), console: await readConsole(machine) }
  }

  /** Half-made templates of an earlier run. */
  removeLeftovers(): void {
    for (const name of listDirectory(this.#templatesDir)) {
      if (name.startsWith("tmp-")) rmSync(join(this.#templatesDir, name), { recursive: true, force: true })
    }
  }

  #fingerprint(spec: TemplateSpec): { value: string; parts: FingerprintParts } {
    const parts: FingerprintParts = {
      qemu: this.#qemu.identity,
      shape: {
        cpus: spec.cpus,
        memoryMib: spec.memoryMib,
        accelerator: this.#accelerator,
        network: this.#network,
      },
      kernelHash: spec.kernel.hash,
      imageHash: spec.image.hash,
    }
    return { value: fingerprint(parts), parts }
  }

  async #load(spec: TemplateSpec): Promise<Template | undefined> {
    const { value, parts } = this.#fingerprint(spec)
    const directory = join(this.#templatesDir, value)
    const manifest = await readManifest(directory)
    if (manifest?.fingerprint !== value) return undefined
    const state = await readFile(join(directory, "state"))
    const memory = statSync(join(directory, "memory"))
    const isWhole =
      memory.size === manifest.files.memory.bytes &&
      state.length === manifest.files.state.bytes &&
      sha256(state) === manifest.files.state.sha256
    if (!isWhole) {
      await rm(directory, { recursive: true, force: true })
      return undefined
    }
    const memoryFd = await readMemory({ path: join(directory, "memory"), bytes: manifest.files.memory.bytes })
    return templateAt({ directory, fingerprint: value, spec, shape: parts.shape, memoryFd })
  }

  #spawn(options: SpawnOptions): ProcessIdentity {
    const spawned = spawnQemu({
      binary: this.#qemu.binary,
      arguments: options.arguments,
      files: options.files,
      confinement: this.#confinement(options.slot),
      logPath: logPath(options.directory),
    })
    this.#children.set(spawned.identity.pid, spawned.exited)
    void spawned.exited.finally(() => this.#children.delete(spawned.identity.pid))
    return spawned.identity
  }

  #confinement(slot: number): Confinement | undefined {
    if (this.#uidBase === undefined) return undefined
    return {
      uid: this.#uidBase + slot,
      groups: this.#accelerator === "kvm" ? [statSync("/dev/kvm").gid] : [],
    }
  }
}

/** Listening sockets of a machine that is about to start. */
export type PreparedSockets = { agent: number; qmp: number }

function prepareSockets(directory: string): PreparedSockets {
  const agent = listenUnix(agentSocket(directory))
  try {
    return { agent, qmp: listenUnix(qmpSocket(directory)) }
  } catch (error) {
    closeSync(agent)
    throw error
  }
}

function closeSockets(sockets: PreparedSockets): void {
  closeSync(sockets.agent)
  closeSync(sockets.qmp)
}

type SpawnOptions = {
  arguments: string[]
  directory: string
  slot: number
  files: Parameters<typeof spawnQemu>[0]["files"]
}

/** The slot of machines that belong to no sandbox. */
const templateSlot = 0

/** A template in the making: `boot`, let the guest come up and fall silent, then `save`; or `abandon`. */
export class TemplateBuild {
  readonly directory: string
  readonly diskPath: string
  readonly blankOverlayPath: string
  readonly #options: TemplateBuildOptions
  #booted: { process: ProcessIdentity; memoryFd: number } | undefined

  constructor(options: TemplateBuildOptions) {
    this.#options = options
    this.directory = options.directory
    this.diskPath = join(options.directory, "disk.qcow2")
    this.blankOverlayPath = join(options.directory, "blank.qcow2")
  }

  /** Starts the machine from its kernel. `diskPath` must exist by now. */
  boot(): Machine {
    const { spec, parts, spawn } = this.#options
    const memoryFd = createMemoryFile({ name: "bhatti-boot", bytes: spec.memoryMib * mebibyte })
    const sockets = prepareSockets(this.directory)
    const opened: number[] = []
    const file = (path: string, flags: number) => {
      const fd = openSync(path, flags, 0o600)
      opened.push(fd)
      return fd
    }
    try {
      const tap = parts.shape.network === "tap" ? openTap(`bht${crypto.randomUUID().slice(0, 8)}`) : undefined
      if (tap !== undefined) opened.push(tap)
      const process = spawn({
        arguments: qemuArguments(parts.shape, "boot", "bhatti-template"),
        directory: this.directory,
        slot: templateSlot,
        files: {
          memory: memoryFd,
          qmpSocket: sockets.qmp,
          agentSocket: sockets.agent,
          overlayDisk: file(this.diskPath, constants.O_RDWR),
          baseDisk: file(spec.image.file, constants.O_RDONLY),
          state: file(
            join(this.directory, "state"),
            constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL,
          ),
          kernel: file(spec.kernel.vmlinux, constants.O_RDONLY),
          initramfs: file(spec.kernel.initramfs, constants.O_RDONLY),
          ...(tap !== undefined && { tap }),
        },
      })
      this.#booted = { process, memoryFd }
      return { process, directory: this.directory }
    } finally {
      for (const fd of opened) closeSync(fd)
      closeSockets(sockets)
      if (!this.#booted) closeSync(memoryFd)
    }
  }

  /** Freezes the booted machine, ends it and publishes the template. */
  async save(): Promise<Template> {
    const booted = this.#booted
    if (!booted) throw new Error("save before boot")
    const { spec, parts, finalDirectory, adopt } = this.#options

    const qmp = await Qmp.open({ socketPath: qmpSocket(this.directory), deadlineMs: qmpDeadlineMs })
    try {
      await qmp.command("stop", {}, { deadlineMs: qmpDeadlineMs })
      await qmp.command(
        "xen-save-devices-state",
        { filename: stateFile, live: false },
        { deadlineMs: qmpDeadlineMs },
      )
    } finally {
      qmp.close()
    }
    await killProcess(booted.process, { deadlineMs: killDeadlineMs })

    const bytes = spec.memoryMib * mebibyte
    await writeMemory({ fd: booted.memoryFd, bytes, path: join(this.directory, "memory") })
    closeSync(booted.memoryFd)
    this.#booted = undefined
    const state = await readFile(join(this.directory, "state"))
    const manifest: TemplateManifest = {
      fingerprint: this.#options.fingerprint,
      parts,
      files: { memory: { bytes }, state: { bytes: state.length, sha256: sha256(state) } },
    }
    for (const name of ["agent.sock", "qmp.sock", "qemu.log"])
      await rm(join(this.directory, name), { force: true })
    for (const name of ["state", "disk.qcow2", "blank.qcow2"]) await syncPath(join(this.directory, name))
    await writeSynced(join(this.directory, "manifest.json"), JSON.stringify(manifest, null, 2))
    await syncPath(this.directory)
    await rm(finalDirectory, { recursive: true, force: true })
    await rename(this.directory, finalDirectory)
    await syncPath(join(finalDirectory, ".."))

    const memoryFd = await readMemory({ path: join(finalDirectory, "memory"), bytes })
    const template = templateAt({
      directory: finalDirectory,
      fingerprint: this.#options.fingerprint,
      spec,
      shape: parts.shape,
      memoryFd,
    })
    adopt(template)
    return template
  }

  /** Leaves nothing behind; does nothing after `save`. */
  async abandon(): Promise<void> {
    if (this.#booted) {
      await killProcess(this.#booted.process, { deadlineMs: killDeadlineMs })
      closeSync(this.#booted.memoryFd)
      this.#booted = undefined
    }
    await rm(this.directory, { recursive: true, force: true })
  }
}

type TemplateBuildOptions = {
  directory: string
  finalDirectory: string
  spec: TemplateSpec
  parts: FingerprintParts
  fingerprint: string
  spawn: (options: SpawnOptions) => ProcessIdentity
  adopt: (template: Template) => void
}

function templateAt(options: {
  directory: string
  fingerprint: string
  spec: TemplateSpec
  shape: MachineShape
  memoryFd: number
}): Template {
  const { directory, ...rest } = options
  return {
    ...rest,
    statePath: join(directory, "state"),
    diskPath: join(directory, "disk.qcow2"),
    blankOverlayPath: join(directory, "blank.qcow2"),
  }
}

async function readManifest(directory: string): Promise<TemplateManifest | undefined> {
  const file = Bun.file(join(directory, "manifest.json"))
  if (!(await file.exists())) return undefined
  return (await file.json()) as TemplateManifest
}

function sha256(bytes: Uint8Array): string {
  return new Bun.CryptoHasher("sha256").update(bytes).digest("hex")
}

async function syncPath(path: string): Promise<void> {
  const handle = await open(path, "r")
  await handle.sync()
  await handle.close()
}

async function writeSynced(path: string, text: string): Promise<void> {
  const handle = await open(path, "wx", 0o600)
  await handle.writeFile(text)
  await handle.sync()
  await handle.close()
}

const tailBytes = 8192

async function tail(path: string): Promise<string> {
  const file = Bun.file(path)
  if (!(await file.exists())) return ""
  return await file.slice(Math.max(0, file.size - tailBytes)).text()
}

async function readConsole(machine: Machine): Promise<string> {
  if (!isAlive(machine.process)) return ""
  try {
    const qmp = await Qmp.open({ socketPath: qmpSocket(machine.directory), deadlineMs: 2000 })
    try {
      return String(
        await qmp.command("ringbuf-read", { device: "console", size: tailBytes }, { deadlineMs: 2000 }),
      )
    } finally {
      qmp.close()
    }
  } catch (error) {
    if (error instanceof AppError) return ""
    throw error
  }
}

function listDirectory(path: string): string[] {
  try {
    return readdirSync(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return []
    throw error
  }
}
