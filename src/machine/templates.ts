/** Templates by what they are made of. Making one boots a machine, and freezes it once its guest is ready. */

import { closeSync, constants, readdirSync } from "node:fs"
import { rm, stat } from "node:fs/promises"
import { basename, join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { unlessMissing } from "../lib/missing-files.ts"
import { runProgram } from "../lib/program.ts"
import { randomHex } from "../lib/random-hex.ts"
import type { Cgroups } from "./cgroups.ts"
import { savedFlags } from "./device-state.ts"
import { emptyOldLogs } from "./old-log-files.ts"
import { type Connect, type Sockets, startConnected } from "./sockets.ts"
import { groupOf, type Machine, openKernel, type Starter, templateSlot } from "./starter.ts"
import type { Template, TemplateDraft, TemplateFiles, TemplateSpec } from "./template-files.ts"
import { zygotesDirectory } from "./zygotes.ts"

const qemuImgDeadlineMs = 30_000

const mebibyte = 1024 * 1024

type Words = { qemu: string; console: string }
type Measured = Awaited<ReturnType<TemplateFiles["measure"]>>

type Begun<Guest> = AsyncDisposable & {
  guest: Guest
  diagnose(): Promise<Words>
  measureDiskMib(): Promise<number>
  commit(): Promise<Template>
}

type Options<Guest> = {
  files: TemplateFiles
  starter: Starter
  cgroups: Cgroups
  dataDir: string
  connect: Connect<Guest>
  diagnose: (machine: Machine) => Promise<Words>
  kill: (machine: Machine) => Promise<void>
  killIn: (directory: string) => Promise<void>
}

export class Templates<Guest extends { close(): void }> {
  readonly #options: Options<Guest>
  readonly #files: TemplateFiles
  readonly #starter: Starter

  constructor(options: Options<Guest>) {
    this.#options = options
    this.#files = options.files
    this.#starter = options.starter
  }

  find(spec: TemplateSpec): Promise<Template | undefined> {
    return this.#files.find(this.#starter.templateFingerprint(spec))
  }

  get(id: string): Promise<Template> {
    return this.#files.get(id)
  }

  /** Boots the image. Disposal removes what was not committed. */
  async begin(spec: TemplateSpec): Promise<Begun<Guest>> {
    const { connect, cgroups, diagnose, kill } = this.#options
    await using undo = new AsyncDisposableStack()
    const shape = this.#starter.shape(spec)
    const draft = await this.#files.begin({
      fingerprint: this.#starter.templateFingerprint(spec),
      shape,
      spec,
    })
    undo.defer(() => rm(draft.directory, { recursive: true, force: true }))
    undo.defer(() => closeSync(draft.memoryFd))
    await createOverlay(draft.diskPath, { backing: "raw", diskMib: spec.image.diskMib })
    await createOverlay(draft.blankOverlayPath, { backing: "qcow2", diskMib: spec.image.diskMib })
    const { machine, guest } = await startConnected(draft.directory, connect, (sockets) =>
      this.#boot(draft, spec, sockets),
    )
    undo.defer(() => kill(machine))
    undo.defer(() => guest.close())
    const begun = undo.move()
    return {
      guest,
      diagnose: () => diagnose(machine),
      measureDiskMib: async () => Math.ceil(((await stat(draft.diskPath)).blocks * 512) / mebibyte),
      commit: async () => {
        const template = await this.#files.commit(draft, machine.process)
        cgroups.remove(groupOf(draft.directory))
        await this.#files.memory(template)
        return template
      },
      [Symbol.asyncDispose]: () => begun.disposeAsync(),
    }
  }

  #boot(draft: TemplateDraft, spec: TemplateSpec, sockets: Sockets): Promise<Machine> {
    return this.#starter.start({
      role: "template",
      diskMib: spec.image.diskMib,
      shape: this.#starter.shape(spec),
      // The random part of its directory's name distinguishes installations.
      name: `bhatti-template-${basename(draft.directory)}`,
      slot: templateSlot,
      directory: draft.directory,
      sockets,
      memoryBase: "empty",
      kit: draft.manifest.kit,
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

  measure(): Promise<Measured> {
    return this.#files.measure()
  }

  releaseOwned(options: { unusedForMs: number }): Promise<void> {
    return this.#files.releaseOwned(options)
  }

  remove(id: string, options: { unusedForMs: number }): Promise<boolean> {
    return this.#files.remove(id, options)
  }

  /**
   * Removes unfinished templates and zygotes of an earlier run, with their machines, and QEMU output kept by earlier
   * versions. Machines that were forked from a zygote hold no file of its directory, and live on.
   */
  async removeUnfinished(): Promise<void> {
    await emptyOldLogs(join(this.#options.dataDir, "sandboxes"))
    const zygotes = foldersIn(zygotesDirectory(this.#options.dataDir))
    // A zygote's trial has its directory in the zygote's.
    const left = zygotes.flatMap((directory) => [...foldersIn(directory), directory])
    for (const directory of [...this.#files.listUnfinished(), ...left]) {
      await this.#options.killIn(directory)
      await rm(directory, { recursive: true, force: true })
    }
  }
}

function foldersIn(directory: string): string[] {
  return (unlessMissing(() => readdirSync(directory, { withFileTypes: true })) ?? [])
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => join(directory, name))
}

/** QEMU gets the backing file as a descriptor when it starts, and never looks its name up in the overlay. */
async function createOverlay(
  path: string,
  options: { backing: "raw" | "qcow2"; diskMib: number },
): Promise<void> {
  const base = ["-u", "-F", options.backing, "-b", "given-at-start"]
  await runProgram(["qemu-img", "create", "-q", "-f", "qcow2", ...base, path, `${options.diskMib}M`], {
    deadlineMs: qemuImgDeadlineMs,
    failure: (why) => {
      const words = why.kind === "missing" ? "qemu-img is not installed" : why.stderr.trim()
      return new AppError("unavailable", `cannot create a disk: ${words.split("\n").at(-1)}`)
    },
  })
}
