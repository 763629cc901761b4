/**
 * Machines of a test's installation without its daemon: a zygote of the installation's template, and machines that are
 * forked from it or cloned from the template.
 */

import { randomBytes } from "node:crypto"
import { readFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { limits } from "@bhatti/contract/limits"
import { Disks } from "../../src/disk/disks.ts"
import { type Guest, openGuest } from "../../src/guest/guest.ts"
import { readImage, readKernel } from "../../src/image/artifacts.ts"
import { readKitFor } from "../../src/image/kits.ts"
import { Cgroups } from "../../src/machine/cgroups.ts"
import { openJail } from "../../src/machine/confinement.ts"
import { findQemu } from "../../src/machine/fingerprint.ts"
import type { Machine } from "../../src/machine/machine-terms.ts"
import { Machines } from "../../src/machine/machines.ts"
import type { MachineDisk } from "../../src/machine/plugged-disks.ts"
import type { Template } from "../../src/machine/template-files.ts"
import type { Zygote, Zygotes } from "../../src/machine/zygotes.ts"
import type { Installation } from "./installation.ts"

const dist = resolve(import.meta.dir, "../../dist")
const deadlineMs = 30_000
/** No sandbox of an installation has it. */
let nextSlot = 40_000
/** A first command needs this code: it is translated when a machine is forked. */
const heat = [["true"], ["echo"], ["sh", "-c", "id"], ["true"], ["echo"], ["sh", "-c", "id"], ["true"]]

export type TestMachine = { id: string; slot: number; machine: Machine; guest: Guest; directory: string }

export class ForkedMachines implements AsyncDisposable {
  readonly machines: Machines<Guest>
  readonly template: Template
  /** Errors of forks that ended in a clone. */
  readonly unforked: unknown[] = []
  readonly #dataDir: string
  readonly #disks: Disks
  readonly #undo = new AsyncDisposableStack()

  private constructor(dataDir: string, open: Open) {
    this.#dataDir = dataDir
    this.#disks = new Disks({ dataDir })
    this.template = open.template
    this.machines = open.machines((error) => this.unforked.push(error))
  }

  /** The installation must have made a template of that size. */
  static async open(
    { dataDir }: Installation,
    { cpus = limits.cpusDefault }: { cpus?: number } = {},
  ): Promise<ForkedMachines> {
    const uid = Number(/^uid_base: (\d+)$/m.exec(readFileSync(join(dataDir, "config.yaml"), "utf8"))?.[1])
    const level = "full"
    const { jail, qemus } = await openJail({
      ...{ dataDir, qemu: findQemu(), launcher: join(dist, "jail"), forbidden: [], level, uid },
    })
    const machines: Open["machines"] = (onTrouble) =>
      new Machines({
        ...{ dataDir, qemus, accelerator: "tcg", network: "tap", uidBase: uid, confinement: level },
        launcher: jail.launcher,
        cgroups: Cgroups.open({ mountPoint: "/sys/fs/cgroup", dataDir }),
        connect: (socketPath) => openGuest({ socketPath }),
        // The daemon knows none of these machines, so they reach no network.
        tapOf: (id) => `bht${id.slice(-8)}`,
        draftOf: (id) => join(dataDir, "drafts", id),
        onUnshared: (_id, error) => onTrouble(error),
        onDamage: onTrouble,
        forks: { library: join(dist, "zygote") },
      })
    const [image, kernel] = await Promise.all([readImage(dataDir, limits.imageDefault), readKernel(dataDir)])
    const template = await machines(() => undefined).templates.find({
      image: { ...image, diskMib: image.sizeMib },
      kernel: { ...kernel, kit: await readKitFor(dataDir, kernel) },
      cpus,
      memoryMib: limits.memoryMibDefault,
    })
    if (!template) throw new Error("the installation has no template of that size")
    return new ForkedMachines(dataDir, { template, machines })
  }

  get zygotes(): Zygotes<Guest> {
    if (!this.machines.zygotes) throw new Error("machines are not forked")
    return this.machines.zygotes
  }

  /** Heats a zygote and freezes it. */
  async makeZygote(): Promise<Zygote> {
    const { zygote, guest } = await this.zygotes.start(this.template)
    this.#undo.defer(() => this.zygotes.end(zygote))
    await personalise(guest, "zygote")
    for (const argv of heat) await run(guest, argv)
    await guest.ask({ op: "quiesce", hold: false }, { deadlineMs })
    guest.close()
    await this.zygotes.freeze(zygote)
    return zygote
  }

  /** Forked from the zygote if one is given, else cloned. */
  async create(zygote: Zygote | undefined, disks: MachineDisk[] = []): Promise<TestMachine> {
    const id = `sb_${randomBytes(5).toString("hex")}`
    const slot = nextSlot++
    const { template } = this
    await this.#disks.createSandbox({ id, template })
    const place = { id, template, slot, diskMib: template.diskMib, disks }
    const { machine, guest, fork = "done" } = await this.machines.start(place, { kind: "template", zygote })
    if (fork !== "done") this.unforked.push(fork.error)
    const made = { id, slot, machine, guest, directory: join(this.#dataDir, "sandboxes", id) }
    this.#undo.defer(() => this.#disks.removeSandbox(id))
    this.#undo.defer(() => this.end(made))
    await personalise(guest, id.replace("_", "-"))
    return made
  }

  /** Starts it from the memory that was saved. */
  async wake({ id, slot, directory }: TestMachine): Promise<TestMachine> {
    const { template } = this
    const place = { id, template, slot, diskMib: template.diskMib }
    const { machine, guest } = await this.machines.start(place, { kind: "memory" })
    const woken = { id, slot, machine, guest, directory }
    this.#undo.defer(() => this.end(woken))
    await guest.waitReady({ deadlineMs, resync: true })
    return woken
  }

  async end({ guest, machine }: TestMachine): Promise<void> {
    guest.close()
    await this.machines.kill(machine)
  }

  async destroy(made: TestMachine): Promise<void> {
    await this.end(made)
    await this.#disks.removeSandbox(made.id)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#undo.disposeAsync()
  }
}

type Open = {
  template: Template
  machines: (onTrouble: (error: unknown) => void) => Machines<Guest>
}

export async function personalise(guest: Guest, hostname: string): Promise<void> {
  const machineId = randomBytes(16).toString("hex")
  const identity = { hostname, machineId, env: {}, network: null, growDisk: false }
  await guest.ask({ op: "personalise", identity }, { deadlineMs })
}

/** Returns what the command printed. */
export async function run(guest: Guest, argv: string[]): Promise<string> {
  const command = guest.processes.start({ argv, onDisconnect: "kill" })
  let output = ""
  for await (const { bytes } of command.output) output += Buffer.from(bytes)
  return output
}
