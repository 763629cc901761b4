/**
 * A clone of the template without bhatti around it: QEMU is started, the guest gets an identity and runs one command.
 * The rest of the cost of a create is our own.
 */

import { join } from "node:path"
import { limits } from "@bhatti/contract/limits"
import launcher from "../dist/jail" with { type: "file" }
import { Disks } from "../src/disk/disks.ts"
import { type Guest, openGuest } from "../src/guest/guest.ts"
import { readImage, readKernel } from "../src/image/artifacts.ts"
import { readKitFor } from "../src/image/kits.ts"
import { Cgroups } from "../src/machine/cgroups.ts"
import { openJail } from "../src/machine/confinement.ts"
import { findQemu } from "../src/machine/fingerprint.ts"
import { Machines } from "../src/machine/machines.ts"
import type { Template } from "../src/machine/template-files.ts"
import type { Bhatti } from "./bhatti.ts"

const deadlineMs = 30_000
/** No sandbox of the installation has it. */
const slot = 65_000
const identity = { hostname: "raw", machineId: "0".repeat(32), env: {}, network: null, growDisk: false }

export class RawClones {
  readonly #machines: Machines<Guest>
  readonly #template: Template
  readonly #disks: Disks

  private constructor(machines: Machines<Guest>, template: Template, disks: Disks) {
    this.#machines = machines
    this.#template = template
    this.#disks = disks
  }

  /** The template of the default size, which the installation's daemon has made by now. */
  static async open(bhatti: Bhatti): Promise<RawClones> {
    const { dataDir } = bhatti.installation
    const { reply } = await bhatti.api("GET", "/version")
    const { accelerator } = reply as { accelerator: "kvm" | "tcg" }
    const isRoot = process.getuid?.() === 0
    const uidBase = Number(
      /^uid_base: (\d+)$/m.exec(await Bun.file(join(dataDir, "config.yaml")).text())?.[1],
    )
    const qemu = findQemu()
    const uid = isRoot ? uidBase : undefined
    const confinement = isRoot ? "full" : "reduced"
    const { jail, qemus } = await openJail({
      ...{ dataDir, qemu, launcher, uid },
      forbidden: [],
      level: confinement,
    })
    const machines = new Machines({
      dataDir,
      qemus,
      accelerator,
      network: isRoot ? "tap" : "user",
      uidBase: uid,
      launcher: jail.launcher,
      confinement,
      cgroups: Cgroups.open({ mountPoint: "/sys/fs/cgroup", dataDir }),
      connect: (socketPath) => openGuest({ socketPath }),
      tapOf: (id) => (isRoot ? `bht${id.slice(-8)}` : undefined),
      draftOf: (id) => id,
      onUnshared: () => undefined,
      onDamage: (error) => {
        throw error
      },
    })
    const [image, kernel] = await Promise.all([readImage(dataDir, limits.imageDefault), readKernel(dataDir)])
    const template = await machines.templates.find({
      image: { ...image, diskMib: image.sizeMib },
      kernel: { ...kernel, kit: await readKitFor(dataDir, kernel) },
      cpus: limits.cpusDefault,
      memoryMib: limits.memoryMibDefault,
    })
    if (!template) throw new Error("no template fits: was the binary built from these very sources?")
    return new RawClones(machines, template, new Disks({ dataDir }))
  }

  /** Milliseconds until the command's output was there. */
  async firstOutput(argv: string[]): Promise<number> {
    const id = `raw-${crypto.randomUUID().slice(0, 8)}`
    const template = this.#template
    const startedAt = performance.now()
    await using undo = new AsyncDisposableStack()
    undo.defer(() => this.#disks.removeSandbox(id))
    await this.#disks.createSandbox({ id, template })
    const place = { id, template, slot, diskMib: template.diskMib }
    const { machine, guest } = await this.#machines.start(place, { kind: "template" })
    undo.defer(() => guest.close())
    undo.defer(() => this.#machines.kill(machine))
    await guest.ask({ op: "personalise", identity }, { deadlineMs })
    const command = guest.processes.start({ argv, onDisconnect: "kill" })
    let ms: number | undefined
    for await (const _ of command.output) ms ??= performance.now() - startedAt
    if (ms === undefined) throw new Error(`${argv.join(" ")} said nothing`)
    return ms
  }
}
