/**
 * The ports of `core` on this host's adapters. Core names machines, templates and drafts by id; their paths and sockets
 * are known here and in the adapters. A start connects to the guest before its machine runs, so that no message is
 * lost.
 */

import type { Guest, Host, Kernel, Machine, Place, Started } from "./core/host.ts"
import type { Disks } from "./disk/disks.ts"
import type { Snapshots } from "./disk/snapshot-directories.ts"
import { openGuest } from "./guest/guest.ts"
import type { Machines } from "./machine/machines.ts"
import type { Sockets } from "./machine/sockets.ts"
import type { Machine as HostMachine, MachineResources } from "./machine/starter.ts"
import type { Template } from "./machine/templates.ts"
import type { TapNetwork } from "./network/tap-network.ts"

type Adapters = {
  machines: Machines
  disks: Disks
  snapshots: Snapshots
  network: TapNetwork | null
}

type Ports = Pick<Host, "machines" | "templates" | "disks" | "snapshots" | "network">

export function hostPorts(adapters: Adapters): Ports {
  const { disks, snapshots, network } = adapters
  return {
    machines: machinePorts(adapters),
    templates: templatePorts(adapters),
    disks: {
      createSandbox: async ({ id, template }: { id: string; template: Template }) => {
        await disks.createSandbox({ id, blankOverlayPath: template.blankOverlayPath })
      },
      removeSandbox: (id) => disks.removeSandbox(id),
      stampOf: (id) => disks.stampOf(id),
      listSandboxes: () => disks.listSandboxes(),
      freeMib: () => disks.freeMib(),
      overlayMib: (id) => disks.overlayMib(id),
      usedMib: (id) => disks.usedMib(id),
      countedMib: (id) => disks.countedMib(id),
    },
    snapshots,
    network,
  }
}

function machinePorts({ machines, disks, snapshots, network }: Adapters): Host["machines"] {
  const at = (id: string) => disks.directoryOf(id)
  const inPlace = ({ id, ...machine }: Machine): HostMachine => ({ ...machine, directory: at(id) })
  const startAt = (
    place: PlaceById,
    run: (place: MachineResources) => Promise<HostMachine>,
  ): Promise<Started> => {
    const { id, ...rest } = place
    const here = { ...rest, name: id, directory: at(id), overlayPath: disks.overlayOf(id) }
    const tapName = network?.tapOf(id)
    return start(machines, { id, directory: here.directory }, (sockets) => run({ ...here, tapName, sockets }))
  }
  return {
    bootId: machines.bootId,
    clone: (place: PlaceById) => startAt(place, (here) => machines.clone(here)),
    restore: (place: PlaceById) => startAt(place, (here) => machines.restore(here)),
    boot: (place: PlaceById, kernel: BootKernel) => startAt(place, (here) => machines.boot(here, kernel)),
    connect: (id) => connectIn(machines, at(id)),
    checkDisk: (id) => machines.checkDisk(at(id)),
    checkSnapshot: (id: string, template: Template) => machines.checkSnapshot(at(id), template),
    pause: (machine) => machines.pause(inPlace(machine)),
    resume: (machine) => machines.resume(inPlace(machine)),
    haltOf: (machine) => machines.haltOf(inPlace(machine)),
    saveSnapshot: (machine, options) => {
      const copy = options && { directory: snapshots.draftOf(options.draft), signal: options.signal }
      return machines.saveSnapshot(inPlace(machine), copy)
    },
    removeSnapshot: (id) => machines.removeSnapshot(at(id)),
    openSharedMemory: (machine) => machines.openSharedMemory(inPlace(machine)),
    isRunning: (machine) => machines.isRunning(inPlace(machine)),
    endsWithin: (machine, options) => machines.endsWithin(inPlace(machine), options),
    endOf: (machine) => machines.endOf(inPlace(machine)),
    lastEndOf: (id) => machines.lastEndIn(at(id)),
    ranOutOfMemory: (machine) => machines.ranOutOfMemory(inPlace(machine)),
    find(id) {
      const found = machines.findIn(at(id))
      return found && { id, process: found.process, memoryBase: found.memoryBase }
    },
    usageOf(machine) {
      const { disk, network: packets } = machines.trafficBytes(inPlace(machine), network?.tapOf(machine.id))
      return { cpuMs: machines.cpuMs(inPlace(machine)), diskBytes: disk, networkBytes: packets }
    },
    untouchedMib: (machine) => machines.untouchedMib(inPlace(machine)),
    availableMemoryMib: () => machines.availableMemoryMib(),
    setUrgency: (machine, urgency) => machines.setUrgency(inPlace(machine), urgency),
    kill: (machine) => machines.kill(inPlace(machine)),
    killAll: (id) => machines.killIn(at(id)),
    slotsInUse: () => machines.slotsInUse(),
    growDisk: (machine, diskMib) => machines.growDisk(inPlace(machine), diskMib),
    diagnose: (machine) => machines.diagnose(inPlace(machine)),
  }
}

function templatePorts({ machines, disks }: Adapters): Host["templates"] {
  return {
    find: (spec) => machines.findTemplate(spec),
    get: (id) => machines.getTemplate(id),
    load: (template: Template) => machines.loadTemplate(template),
    async begin(spec) {
      await using undo = new AsyncDisposableStack()
      const draft = await machines.beginTemplate(spec)
      undo.defer(() => machines.abandonTemplate(draft))
      const { diskMib } = spec.image
      await disks.createBase({ path: draft.diskPath, diskMib, backing: "raw" })
      await disks.createBase({ path: draft.blankOverlayPath, diskMib, backing: "qcow2" })
      let running: HostMachine | undefined
      const { guest } = await start(
        machines,
        { id: "template", directory: draft.directory },
        async (sockets) => {
          running = await machines.bootTemplate(draft, spec, sockets)
          return running
        },
      )
      const machine = running
      if (!machine) throw new Error("a template has no machine")
      undo.defer(() => machines.kill(machine))
      undo.defer(() => guest.close())
      const begun = undo.move()
      return {
        guest,
        diagnose: () => machines.diagnose(machine),
        publish: () => machines.publishTemplate(draft, machine),
        [Symbol.asyncDispose]: () => begun.disposeAsync(),
      }
    },
    measure: () => machines.measureTemplates(),
    remove: (id, options) => machines.removeTemplate(id, options),
    removeUnfinished: () => machines.removeLeftovers(),
  }
}

function connectIn(machines: Machines, directory: string): Promise<Guest> {
  return openGuest({ socketPath: machines.agentSocket(directory) })
}

async function start(
  machines: Machines,
  { id, directory }: { id: string; directory: string },
  run: (sockets: Sockets) => Promise<HostMachine>,
): Promise<Started> {
  const sockets = await machines.prepareSockets(directory)
  const guest = await connectIn(machines, directory)
  try {
    const { process, memoryBase } = await run(sockets)
    return { machine: { id, process, memoryBase }, guest }
  } catch (error) {
    guest.close()
    throw error
  }
}

type PlaceById = Place & { template: Template }
type BootKernel = Kernel & { arguments?: string[] }
