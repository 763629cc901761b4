/**
 * Zygotes: a QEMU per template that has loaded it, has run what a first command needs, stands still, and is forked for
 * each machine. Memory, translated code and heap are then shared. A machine made in this way is a clone of the same
 * template in everything else: its own pages are those that the zygote or it has written
 * (docs/decisions/0031-forked-machines.md).
 *
 *   start ──► heating (its guest answers) ──freeze──► frozen ──try──► ──fork──► a machine, any number of times
 */

import { constants } from "node:fs"
import { copyFile, mkdir, rm } from "node:fs/promises"
import { join } from "node:path"
import { removeFile } from "../lib/missing-files.ts"
import { createMemoryFile, sealMemoryFile } from "../lib/posix.ts"
import { isAlive, type ProcessIdentity } from "../lib/process-identity.ts"
import { randomHex } from "../lib/random-hex.ts"
import { diskPathOf } from "./bound-disk.ts"
import { findForkable, orderOf } from "./fork-from-memory.ts"
import { type ForkTrial, writeTrial } from "./fork-trial.ts"
import type { KeptQemus } from "./kept-qemu.ts"
import { writePlugged } from "./plugged-disks.ts"
import type { Urgency } from "./process.ts"
import type { Connect } from "./sockets.ts"
import { startConnected } from "./sockets.ts"
import { groupOf, type Machine, type MachineResources, type Starter } from "./starter.ts"
import type { Template, TemplateFiles } from "./template-files.ts"
import { checkZygote, forkZygote, stopZygote } from "./zygote-control.ts"
import { tryZygote } from "./zygote-trial.ts"

const stopDeadlineMs = 30_000
const checkDeadlineMs = 10_000
const forkDeadlineMs = 5000

/** A QEMU that can be forked, or will be once it is frozen. */
export type Zygote = {
  template: Template
  process: ProcessIdentity
  /** Its sockets and its disk. */
  directory: string
}

export type ForkResources = Omit<MachineResources, "sockets" | "disks" | "qemu">

export type ForksOptions = {
  /** Path of the library that is loaded into QEMU. */
  library: string
}

export type ZygotesOptions<Guest> = ForksOptions & {
  dataDir: string
  qemus: KeptQemus
  starter: Starter
  files: TemplateFiles
  connect: Connect<Guest>
  kill: (machine: Machine) => Promise<void>
  /** Ends all processes of the machine in that directory. */
  killIn: (directory: string) => Promise<void>
  /** `group` is the name of its control group. */
  setUrgency: (process: ProcessIdentity, group: string, urgency: Urgency) => void
  /** Notices the machine's end from now on. */
  watch: (machine: Machine) => void
}

export class Zygotes<Guest extends { close(): void }> {
  readonly #options: ZygotesOptions<Guest>
  #library: Promise<number> | undefined

  constructor(options: ZygotesOptions<Guest>) {
    this.#options = options
  }

  /**
   * Starts one, whose guest then runs. The caller runs in it what a first command needs, quiesces it, closes the
   * connection, and freezes it. Until then it gives way to machines. A start that fails leaves neither process nor
   * directory.
   */
  async start(template: Template): Promise<{ zygote: Zygote; guest: Guest }> {
    const { dataDir, files, starter, connect } = this.#options
    const directory = join(zygotesDirectory(dataDir), `${template.id}-${randomHex(4)}`)
    await using undo = new AsyncDisposableStack()
    await mkdir(directory, { recursive: true, mode: 0o700 })
    undo.defer(() => rm(directory, { recursive: true, force: true }))
    undo.defer(() => this.#options.killIn(directory))
    await copyFile(template.blankOverlayPath, diskPathOf(directory), constants.COPYFILE_EXCL)
    const memory = await files.memory(template)
    const library = await this.#loadLibrary()
    const { machine, guest } = await startConnected(directory, connect, (sockets) =>
      starter.startZygote({
        ...{ template, directory, sockets, library, memory },
        slot: starter.zygoteSlot(),
        name: `bhatti-zygote-${template.id}`,
        tapName: starter.network === "tap" ? `bhz${randomHex(4)}` : undefined,
      }),
    )
    const zygote = { template, process: machine.process, directory }
    this.#setUrgency(zygote, "background")
    undo.move()
    return { zygote, guest }
  }

  #setUrgency({ process, directory }: Zygote, urgency: Urgency): void {
    this.#options.setUrgency(process, groupOf(directory), urgency)
  }

  #loadLibrary(): Promise<number> {
    this.#library ??= loadLibrary(this.#options.library).catch((error: unknown) => {
      this.#library = undefined
      throw error
    })
    return this.#library
  }

  /** Stops its vCPUs for good. Throws, with the reason, if this QEMU cannot be forked. */
  async freeze(zygote: Zygote): Promise<void> {
    const { directory } = zygote
    // Its children begin with its priority.
    this.#setUrgency(zygote, "normal")
    await checkZygote(directory, { deadlineMs: checkDeadlineMs })
    await stopZygote(directory, { deadlineMs: stopDeadlineMs })
  }

  /** Returns the error of a fork that failed: the machine has to be cloned, from the template's empty disk. */
  async tryFork(
    zygote: Zygote,
    resources: ForkResources,
  ): Promise<{ machine: Machine; guest: Guest } | { error: unknown }> {
    try {
      const forked = await this.fork(zygote, resources)
      this.#options.watch(forked.machine)
      return forked
    } catch (error) {
      await replaceFile(resources.template.blankOverlayPath, resources.overlayPath)
      return { error }
    }
  }

  /**
   * Makes a machine, which runs when this returns, with its guest connected. Its disk, at `overlayPath`, is a copy of
   * the zygote's: QEMU's knowledge of its tables must be true. If the fork fails, no process is left.
   */
  async fork(zygote: Zygote, resources: ForkResources): Promise<{ machine: Machine; guest: Guest }> {
    const { connect, starter, killIn } = this.#options
    const { directory, overlayPath } = resources
    try {
      await writePlugged(directory, [])
      await replaceFile(diskPathOf(zygote.directory), overlayPath)
      return await startConnected(directory, connect, (sockets) =>
        starter.startForked({ ...resources, sockets }, (means) =>
          forkZygote(zygote, { ...means, deadlineMs: forkDeadlineMs }),
        ),
      )
    } catch (error) {
      await killIn(directory)
      throw error
    }
  }

  /**
   * Forks a machine that goes on from the saved memory in its directory, which must have been checked. Returns the
   * error of a fork that failed before the guest ran, with disk and saved memory as before, and undefined if that
   * memory is not of such a machine as the zygote.
   */
  async tryWake(
    zygote: Zygote,
    resources: ForkResources,
  ): Promise<{ machine: Machine; guest: Guest } | { error: unknown } | undefined> {
    const { connect, files, killIn, starter, watch } = this.#options
    const { directory, template } = resources
    try {
      const saved = await findForkable(zygote, directory)
      if (!saved) return undefined
      using order = await orderOf(saved, await files.memory(template))
      await writePlugged(directory, [])
      const { fd: state, load } = order
      const woken = await startConnected(directory, connect, (sockets) =>
        starter.startForked({ ...resources, sockets, state }, (means) =>
          forkZygote(zygote, { ...means, deadlineMs: forkDeadlineMs, load }),
        ),
      )
      watch(woken.machine)
      return woken
    } catch (error) {
      await killIn(directory)
      return { error }
    }
  }

  /** Forks a machine for trial. Throws, with the reason, unless machines can be forked from it. */
  try(zygote: Zygote, prove: (guest: Guest) => Promise<unknown>): Promise<void> {
    const { starter, kill } = this.#options
    const { template } = zygote
    const fork = (directory: string) =>
      this.fork(zygote, {
        ...{ template, directory, overlayPath: diskPathOf(directory), name: "trial" },
        // A forked machine's user is nobody else's, and templates that are made share theirs.
        slot: starter.zygoteSlot(),
        ...{ diskMib: template.diskMib, kit: template.kit },
        tapName: starter.network === "tap" ? `bhz${randomHex(4)}` : undefined,
      })
    return tryZygote({ zygote, fork, kill, prove })
  }

  isAlive({ process }: Zygote): boolean {
    return isAlive(process)
  }

  /** The QEMU that would be forked, for messages. */
  get build(): string {
    return `QEMU ${this.#options.qemus.present.name}`
  }

  async keepTrial(trial: ForkTrial): Promise<void> {
    await writeTrial(this.#options.dataDir, { ...trial, build: this.build })
  }

  /** Ends it. The machines made from it live on. */
  async end({ process, directory }: Zygote): Promise<void> {
    await this.#options.kill({ process, directory, memoryBase: "template" })
    await rm(directory, { recursive: true, force: true })
  }
}

/** Each has a directory here, while it lives. */
export function zygotesDirectory(dataDir: string): string {
  return join(dataDir, "zygotes")
}

/**
 * In a memory file, since QEMU sees no file of the host. It stays open as long as the daemon, and nobody can write to
 * it: all machines run it.
 */
async function loadLibrary(path: string): Promise<number> {
  const bytes = await Bun.file(path).bytes()
  const fd = createMemoryFile({ name: "bhatti-zygote", bytes: bytes.length })
  await Bun.write(Bun.file(`/proc/self/fd/${fd}`), bytes)
  sealMemoryFile(fd)
  return fd
}

async function replaceFile(from: string, to: string): Promise<void> {
  removeFile(to)
  await copyFile(from, to, constants.COPYFILE_FICLONE | constants.COPYFILE_EXCL)
}
