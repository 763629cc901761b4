/**
 * The host as the simulation has it: processes, directories, disks and memories that outlive the daemon, and the ports
 * through which one life of the daemon reaches them. It keeps the real host's promises, no better ones: a call takes
 * several steps, between any two of which it may fail or the daemon die. What must never happen is told to `violation`.
 */

import { AppError } from "@bhatti/contract/errors"
import type {
  GuestAnswer,
  GuestQuestion,
  GuestQuestions,
  OutputChunk,
  ProcessStart,
} from "@bhatti/contract/guest"
import type {
  Guest,
  GuestProcess,
  GuestProcesses,
  Host,
  Machine,
  MachineFrom,
  MachinePlace,
  Started,
  Template,
  Zygote,
} from "../../src/core/host.ts"
import { fakeHost } from "../support/fake-host.ts"
import type { Life, SimulatedTime } from "./life.ts"

/** A guest's memory until it is switched off. */
export type Memory = {
  owner: string | undefined
  marker: string | null
  /** Random numbers and clock were renewed since it was copied or loaded. */
  isFresh: boolean
}
/** `version` grows while a machine runs on it; a saved memory belongs to exactly one version. */
export type Disk = { version: number; file: string | null }
export type Snapshot = {
  memory: Memory
  memoryBase: Machine["memoryBase"]
  diskVersion: number
  damage: "none" | "visible" | "hidden"
}
export type Directory = {
  disk: Disk | undefined
  snapshot: Snapshot | undefined
  sockets: Sockets | undefined
}
/** A disk, and the memory of the same instant. */
export type Copy = Pick<Directory, "disk" | "snapshot">
/** The channel's end on the host; a machine serves one client at a time. */
type Sockets = { preparedBy: Life; process: Process | undefined; clients: SimulatedGuest[] }

export type Process = {
  pid: number
  name: string
  directory: Directory
  slot: number
  /** Missing while it waits for its state. */
  memory: Memory | undefined
  startedBy: Life
  memoryBase: Machine["memoryBase"]
  isPaused: boolean
  isHung: boolean
  /** It stands still for good, and machines are forked from it. */
  isFrozen?: boolean
}

const templateName = "template"
/** Names of zygotes begin with it. */
export const zygoteName = "zygote "
/** A clone goes on as its template until it is given an identity; the guest cannot tell. */
const templateOwner = "a template"
export const plentyMib = 100_000

export class World {
  readonly directories = new Map<string, Directory>()
  readonly processes = new Map<number, Process>()
  readonly templates = new Map<string, Template>()
  readonly drafts = new Map<string, Copy>()
  readonly kept = new Map<string, Copy>()
  readonly time: SimulatedTime
  readonly violation: (what: string) => void
  readonly #onSpawn: (name: string) => void
  /** Sandboxes for whose machines the host has nothing now. */
  readonly unstartable = new Set<string>()
  availableMemoryMib = plentyMib
  /** Machines can be forked. */
  hasForks = false
  /** Machines that were forked, and clones of forks that failed. */
  readonly forks = { done: 0, failed: 0 }
  bootId = 1
  #nextPid = 1000

  constructor(options: {
    time: SimulatedTime
    violation: (what: string) => void
    onSpawn: (name: string) => void
  }) {
    this.#onSpawn = options.onSpawn
    this.time = options.time
    this.violation = options.violation
  }

  /** A moment passes: whoever runs writes to its disk. */
  run(): void {
    for (const { directory, memory, isPaused, isHung } of this.processes.values()) {
      if (memory && !isPaused && !isHung && directory.disk) directory.disk.version++
    }
  }

  named(name: string): Process | undefined {
    return [...this.processes.values()].find((process) => process.name === name)
  }

  /** However a machine ends. Its clients hear of it, each in its own time. */
  end(process: Process): void {
    this.processes.delete(process.pid)
    const { sockets } = process.directory
    if (sockets?.process !== process) return
    for (const client of sockets.clients) client.hangUp("the machine ended")
  }

  /** The daemon dies: its connections break, and a machine that still waited for its state ends. */
  onDaemonEnd(life: Life): void {
    for (const process of [...this.processes.values()]) {
      if (!process.memory && process.startedBy === life) this.end(process)
      const { sockets } = process.directory
      if (sockets) sockets.clients = sockets.clients.filter((client) => client.life !== life)
    }
  }

  reboot(): void {
    for (const process of [...this.processes.values()]) this.end(process)
    this.bootId++
  }

  spawn(
    life: Life,
    place: Pick<MachinePlace, "id" | "slot">,
    start: Pick<Process, "memory" | "memoryBase">,
  ): Process {
    this.#onSpawn(place.id)
    if (this.unstartable.has(place.id)) throw new AppError("unavailable", "injected: it does not start")
    const directory = this.directories.get(place.id)
    if (!directory?.disk) throw new Error(`${place.id} has no disk to start from`)
    for (const other of this.processes.values()) {
      if (other.directory === directory) this.violation(`a second machine starts on the disk of ${place.id}`)
      if (place.slot !== 0 && other.slot === place.slot)
        this.violation(`two machines have the slot ${place.slot}`)
    }
    const process: Process = {
      ...start,
      pid: this.#nextPid++,
      name: place.id,
      directory,
      slot: place.slot,
      startedBy: life,
      isPaused: false,
      isHung: false,
    }
    this.processes.set(process.pid, process)
    if (directory.sockets) directory.sockets.process = process
    return process
  }

  find(machine: Machine): Process | undefined {
    return machine.process.bootId === String(this.bootId)
      ? this.processes.get(machine.process.pid)
      : undefined
  }

  /** As QEMU's monitor: answers unless the process hangs or is gone. */
  ask(machine: Machine): Process {
    const process = this.find(machine)
    if (!process) throw new AppError("unavailable", "the machine's monitor is closed")
    if (process.isHung) throw new AppError("unavailable", "QEMU did not answer in time")
    return process
  }

  host(life: Life): Host {
    const fake = fakeHost()
    const { violation } = this
    const refused = (what: string) => () => new AppError("unavailable", `injected: ${what}`)
    const damaged = () => new AppError("unavailable", "injected: damaged", { retryable: false })
    const diskFull = () => Object.assign(new Error("injected: no space left"), { code: "ENOSPC" })
    const machineOf = (process: Process): Machine => ({
      process: { pid: process.pid, startTicks: 1, bootId: String(this.bootId) },
      id: process.name,
      memoryBase: process.memoryBase,
    })
    const connect = async (id: string): Promise<Guest> => {
      await life.step("connect", [refused("connect")])
      const sockets = this.directories.get(id)?.sockets
      const isListening =
        sockets && (sockets.process ? this.processes.has(sockets.process.pid) : sockets.preparedBy === life)
      if (!isListening) throw new AppError("unavailable", "nobody listens at the machine's socket")
      const guest = new SimulatedGuest(this, life, sockets)
      sockets.clients.push(guest)
      return guest as unknown as Guest
    }
    const start = async (id: string, run: () => Promise<Machine>): Promise<Started> => {
      await life.step("sockets", [refused("sockets")])
      const found = this.directories.get(id)
      if (!found) throw new Error(`no directory of ${id}`)
      found.sockets = { preparedBy: life, process: undefined, clients: [] }
      const guest = await connect(id)
      try {
        return { machine: await run(), guest }
      } catch (error) {
        guest.close()
        throw error
      }
    }
    const kill = async (label: string, find: () => Process | undefined) => {
      await life.step(label, [refused("the process does not end")])
      const process = find()
      if (process) this.end(process)
      await life.step(`${label}: gone`)
    }

    const find = ({ process: { pid, bootId } }: Zygote) =>
      bootId === String(this.bootId) ? this.processes.get(pid) : undefined
    /** A fork takes several steps, and the zygote, its child or the daemon may end at each. */
    const fork = async (place: MachinePlace, zygote: Zygote): Promise<Machine> => {
      await life.step("fork", [refused("fork")])
      const parent = find(zygote)
      if (!parent || parent.isHung) throw new AppError("unavailable", "the zygote does not answer")
      if (!parent.isFrozen) violation(`${place.id} is forked from a machine that runs`)
      const memory: Memory = { owner: templateOwner, marker: null, isFresh: false }
      const process = this.spawn(life, place, { memory, memoryBase: "template" })
      try {
        await life.step("forked", [refused("the child ended"), refused("its answer is lost")])
        if (!this.processes.has(process.pid)) throw refused("it ended")()
      } catch (error) {
        await kill("undo the fork", () => this.processes.get(process.pid))
        throw error
      }
      return machineOf(process)
    }
    const forkOrClone = async (place: MachinePlace, zygote: Zygote | undefined): Promise<Started> => {
      if (!zygote) return start(place.id, () => starts.template(place))
      try {
        const started = await start(place.id, () => fork(place, zygote))
        this.forks.done++
        return { ...started, fork: "done" }
      } catch (error) {
        this.forks.failed++
        return { ...(await start(place.id, () => starts.template(place))), fork: { error } }
      }
    }

    const starts: Record<MachineFrom["kind"], (place: MachinePlace) => Promise<Machine>> = {
      template: async (place) => {
        await life.step("clone", [refused("clone")])
        const memory: Memory = { owner: templateOwner, marker: null, isFresh: false }
        const process = this.spawn(life, place, { memory, memoryBase: "template" })
        await life.step("cloned")
        return machineOf(process)
      },
      disk: async (place) => {
        await life.step("boot", [refused("boot")])
        const memory: Memory = { owner: undefined, marker: null, isFresh: true }
        const process = this.spawn(life, place, { memory, memoryBase: "empty" })
        await life.step("booted")
        return machineOf(process)
      },
      memory: async (place) => {
        await life.step("restore", [refused("restore")])
        const directory = this.directories.get(place.id)
        const snapshot = directory?.snapshot
        if (!directory || !snapshot) throw damaged()
        const process = this.spawn(life, place, { memory: undefined, memoryBase: snapshot.memoryBase })
        try {
          await life.step("restore: load", [refused("load"), damaged])
          if (!this.processes.has(process.pid)) throw refused("it ended")()
          if (process.isHung) throw refused("it hangs")()
          if (snapshot.damage !== "none") throw damaged()
        } catch (error) {
          await kill("restore: undo", () => this.processes.get(process.pid))
          throw error
        }
        if (snapshot.diskVersion !== directory.disk?.version) {
          violation(`${place.id} continues from a memory that its disk has outgrown`)
        }
        process.memory = { ...snapshot.memory, isFresh: false }
        await life.step("restored")
        return machineOf(process)
      },
    }

    return {
      ...fake,
      machines: {
        ...fake.machines,
        start: (place, from) =>
          from.kind === "template"
            ? forkOrClone(place, from.zygote)
            : start(place.id, () => starts[from.kind](place)),
        connect: ({ id }) => connect(id),
        checkDisk: async () => {
          await life.step("check disk")
          return { missingMib: 0 }
        },
        checkSnapshot: async (id) => {
          await life.step("check snapshot")
          const snapshot = this.directories.get(id)?.snapshot
          if (!snapshot) return { fits: false, reason: "there is no memory snapshot" }
          return snapshot.damage === "visible"
            ? { fits: false, reason: "it is damaged" }
            : { fits: true, memoryMib: 20 }
        },
        pause: async (machine) => {
          await life.step("pause", [refused("pause")])
          this.ask(machine).isPaused = true
          await life.step("paused", [refused("paused, but the answer is lost")])
        },
        resume: async (machine) => {
          await life.step("resume", [refused("resume")])
          this.ask(machine).isPaused = false
          await life.step("resumed")
        },
        haltOf: async (machine) => (this.ask(machine).isPaused ? "paused" : "none"),
        saveSnapshot: async (machine, options) => {
          await life.step("save", [refused("save"), diskFull])
          const process = this.ask(machine)
          if (!process.isPaused) violation(`${process.name} is saved while it runs`)
          if (process.memoryBase !== machine.memoryBase) {
            violation(`the memory of ${process.name} is saved as a difference to what it was not made from`)
          }
          await life.step("save: memory", [diskFull])
          const { memory, directory } = this.ask(machine)
          if (!memory || !directory.disk) throw new Error("nothing to save")
          const target = options === undefined ? directory : this.#draft(options.draft)
          target.snapshot = {
            memory: { ...memory },
            memoryBase: process.memoryBase,
            diskVersion: directory.disk.version,
            damage: "none",
          }
          await life.step("saved", [refused("saved, but not synced")])
        },
        removeSnapshot: async (id) => {
          await life.step("remove snapshot", [refused("remove snapshot")])
          const found = this.directories.get(id)
          if (found) found.snapshot = undefined
          await life.step("snapshot removed")
        },
        isRunning: (machine) => this.find(machine) !== undefined,
        fateOf: async (machine) => {
          await life.step("does it end")
          if (this.find(machine)) return { how: "running" }
          return { how: machine.process.bootId === String(this.bootId) ? "killed" : "host_restart" }
        },
        lastEndOf: async () => undefined,
        find: (id) => {
          const process = this.named(id)
          return process && machineOf(process)
        },
        usageOf: () => ({ cpuMs: 0, diskBytes: 0, networkBytes: 0 }),
        untouchedMib: async () => undefined,
        availableMemoryMib: () => this.availableMemoryMib,
        kill: (machine) =>
          "process" in machine
            ? kill("kill", () => this.find(machine))
            : kill("kill what is there", () => this.named(machine.id)),
        isSlotInUse: () => false,
        growDisk: async (machine) => {
          await life.step("grow disk", [refused("grow disk")])
          this.ask(machine)
        },
        diagnose: async () => ({ qemu: "", console: "" }),
      },
      templates: {
        ...fake.templates,
        find: async (spec) => this.templates.get(JSON.stringify([spec.cpus, spec.memoryMib])),
        get: async (id) => {
          const found = [...this.templates.values()].find((template) => template.id === id)
          if (!found) throw new AppError("unavailable", `the template ${id} is missing`, { retryable: false })
          return found
        },
        begin: async (spec) => {
          await life.step("begin template", [diskFull])
          const directory = { disk: { version: 0, file: null }, snapshot: undefined, sockets: undefined }
          this.directories.set(templateName, directory)
          const abandon = async () => {
            await life.step("abandon template")
            this.directories.delete(templateName)
          }
          await using undo = new AsyncDisposableStack()
          undo.defer(abandon)
          await life.step("create base", [diskFull])
          const { machine, guest } = await start(templateName, async () => {
            await life.step("boot template", [refused("boot template")])
            const memory: Memory = { owner: undefined, marker: null, isFresh: true }
            const place = { id: templateName, slot: 0 }
            const process = this.spawn(life, place, { memory, memoryBase: "empty" })
            await life.step("template booted")
            return machineOf(process)
          })
          undo.defer(() => kill("kill the template's machine", () => this.find(machine)))
          undo.defer(() => guest.close())
          const begun = undo.move()
          return {
            guest,
            diagnose: async () => ({ qemu: "", console: "" }),
            measureDiskMib: async () => 0,
            commit: async () => {
              await life.step("commit template", [diskFull])
              this.end(this.ask(machine))
              this.directories.delete(templateName)
              await life.step("template saved")
              const key = JSON.stringify([spec.cpus, spec.memoryMib])
              const template = { id: `template ${key}`, diskMib: 8192 }
              this.templates.set(key, template)
              return template
            },
            [Symbol.asyncDispose]: () => begun.disposeAsync(),
          }
        },
        removeUnfinished: async () => {
          await kill("remove leftovers", () => this.named(templateName))
          this.directories.delete(templateName)
          for (const name of [...this.directories.keys()].filter((id) => id.startsWith(zygoteName))) {
            await kill("remove a zygote", () => this.named(name))
            this.directories.delete(name)
          }
        },
      },
      zygotes: this.hasForks ? this.#zygotesOf(life, { start, kill, machineOf, find }) : null,
      snapshots: {
        begin: async (id) => {
          await life.step("draft", [diskFull])
          this.drafts.set(id, { disk: undefined, snapshot: undefined })
        },
        copyAhead: async ({ id, sandboxId }) => {
          await life.step("copy ahead", [diskFull])
          const source = this.directories.get(sandboxId)
          if (!source?.disk) throw new Error(`no disk of ${sandboxId}`)
          this.#draft(id).disk = { ...source.disk }
          await life.step("copied ahead")
        },
        capture: async ({ id, sandboxId, storedMemory }) => {
          await life.step("capture", [diskFull])
          const draft = this.#draft(id)
          const source = this.directories.get(sandboxId)
          if (!source?.disk) throw new Error(`no disk of ${sandboxId}`)
          const running = this.named(sandboxId)
          if (running && !running.isPaused) violation(`the disk of ${sandboxId} is copied while it runs`)
          draft.disk = { ...source.disk }
          if (storedMemory) draft.snapshot = source.snapshot
          await life.step("captured")
        },
        commit: async (id) => {
          await life.step("commit", [diskFull])
          this.kept.set(id, this.#draft(id))
          this.drafts.delete(id)
          await life.step("committed")
          return { bytes: 1024 }
        },
        place: async ({ id, sandboxId, draft }) =>
          this.#place(life, (draft ? this.drafts : this.kept).get(id), sandboxId),
        remove: async (id) => {
          await life.step("remove copy")
          this.kept.delete(id)
          this.drafts.delete(id)
        },
        list: async () => [...this.kept.keys()],
        removeUnfinished: async () => this.drafts.clear(),
      },
      keptRows: {
        write: async () => true,
        setAside: async (kind, id) => {
          violation(`a crash left a ${kind} that the store does not know: ${id}`)
          return ""
        },
        templatesUnderUnknown: () => [],
      },
      disks: {
        ...fake.disks,
        createSandbox: async ({ id }) => {
          await life.step("create directory", [diskFull])
          const directory: Directory = { disk: undefined, snapshot: undefined, sockets: undefined }
          this.directories.set(id, directory)
          try {
            await life.step("create disk", [diskFull])
          } catch (error) {
            this.directories.delete(id)
            throw error
          }
          directory.disk = { version: 0, file: null }
          await life.step("disk created")
        },
        removeSandbox: async (id) => {
          await life.step("remove directory", [refused("remove directory")])
          const directory = this.directories.get(id)
          if (directory) directory.snapshot = undefined
          await life.step("directory half removed", [refused("remove the rest")])
          if (this.named(id)) violation(`the disk of ${id} is removed under its machine`)
          this.directories.delete(id)
          await life.step("directory removed")
        },
        stampOf: async (id) => `${this.directories.get(id)?.disk?.version}`,
        listSandboxes: async () =>
          [...this.directories.keys()].filter((id) => id !== templateName && !id.startsWith(zygoteName)),
        freeMib: async () => 100_000,
        measureMib: async () => 1,
      },
    }
  }

  #zygotesOf(
    life: Life,
    host: {
      start: (id: string, run: () => Promise<Machine>) => Promise<Started>
      kill: (label: string, find: () => Process | undefined) => Promise<void>
      machineOf: (process: Process) => Machine
      find: (zygote: Zygote) => Process | undefined
    },
  ): Host["zygotes"] {
    const { start, kill, machineOf, find } = host
    const refused = (what: string) => () => new AppError("unavailable", `injected: ${what}`)
    const names = new Map<number, string>()
    const end = async (zygote: Zygote) => {
      await kill("end a zygote", () => find(zygote))
      this.directories.delete(names.get(zygote.process.pid) ?? "")
    }
    return {
      build: "QEMU, simulated",
      start: async (template) => {
        await life.step("begin a zygote", [refused("no space for a zygote")])
        const id = `${zygoteName}${this.#nextPid}`
        this.directories.set(id, {
          ...{ disk: { version: 0, file: null }, snapshot: undefined, sockets: undefined },
        })
        const begin = async () => {
          await life.step("start a zygote", [refused("start a zygote")])
          const memory: Memory = { owner: templateOwner, marker: null, isFresh: false }
          const process = this.spawn(life, { id, slot: 0 }, { memory, memoryBase: "template" })
          await life.step("a zygote runs")
          return machineOf(process)
        }
        try {
          const { machine, guest } = await start(id, begin)
          names.set(machine.process.pid, id)
          return { zygote: { template, process: machine.process }, guest }
        } catch (error) {
          await kill("undo a zygote", () => this.named(id))
          this.directories.delete(id)
          throw error
        }
      },
      freeze: async (zygote) => {
        await life.step("freeze", [refused("this QEMU cannot be forked")])
        const found = find(zygote)
        if (!found || found.isHung) throw new AppError("unavailable", "the zygote does not answer")
        found.isPaused = true
        found.isFrozen = true
        await life.step("frozen")
      },
      try: async (zygote, prove) => {
        await life.step("try a zygote", [refused("a child is not apart from its zygote")])
        const found = find(zygote)
        if (!found || found.isHung) throw new AppError("unavailable", "the zygote does not answer")
        const id = `${zygoteName}trial ${this.#nextPid}`
        this.directories.set(id, {
          ...{ disk: { version: 0, file: null }, snapshot: undefined, sockets: undefined },
        })
        try {
          const { guest } = await start(id, async () => {
            const memory: Memory = { owner: templateOwner, marker: null, isFresh: false }
            const child = this.spawn(life, { id, slot: 0 }, { memory, memoryBase: "template" })
            await life.step("a trial runs", [refused("the child ended")])
            return machineOf(child)
          })
          await prove(guest).finally(() => guest.close())
        } finally {
          await kill("end a trial", () => this.named(id))
          this.directories.delete(id)
        }
      },
      isAlive: (zygote) => find(zygote) !== undefined,
      end,
      keepTrial: async () => undefined,
    }
  }

  #draft(id: string): Copy {
    const draft = this.drafts.get(id)
    if (!draft) throw new Error(`no draft ${id}`)
    return draft
  }

  /** A copy of the copy becomes a sandbox's directory. */
  async #place(life: Life, copy: Copy | undefined, id: string): Promise<{ hasMemory: boolean }> {
    await life.step("place")
    if (!copy?.disk) throw new AppError("unavailable", "the copy is not whole")
    this.directories.set(id, { disk: { ...copy.disk }, snapshot: copy.snapshot, sockets: undefined })
    await life.step("placed")
    return { hasMemory: copy.snapshot !== undefined }
  }
}

const pausedStepsMax = 20

const answers: {
  [Op in keyof GuestQuestions]?: (memory: Memory, fields: GuestQuestions[Op]["fields"]) => GuestAnswer<Op>
} = {
  ping: (memory) => ({
    version: "simulated",
    personalised: memory.owner !== undefined && memory.isFresh,
    bootFailures: [],
    rootReadOnly: false,
    repair: undefined,
  }),
  personalise: (memory, { identity }) => {
    memory.owner = identity.machineId
    memory.isFresh = true
    return { bootId: "simulated", isPending: false, knowsImages: true }
  },
  refresh: (memory) => {
    if (memory.owner === undefined) throw new AppError("conflict", "the guest has no identity yet")
    memory.isFresh = true
  },
  quiesce: () => undefined,
  shutdown: () => undefined,
  nextTimer: () => ({ dueMs: null }),
  trim: () => undefined,
  removeFile: () => undefined,
}

/** The part of a guest that the simulated users need; asking for more fails loudly. */
class SimulatedGuest
  implements Pick<Guest, "closed" | "activity" | "waitReady" | "ask" | "watch" | "processes" | "close">
{
  readonly life: Life
  readonly #world: World
  readonly #sockets: Sockets
  readonly #closed = Promise.withResolvers<{ reason: string }>()
  readonly closed = this.#closed.promise
  readonly activity = { openStreams: 0, lastAtMs: 0 }
  #isClosed = false

  constructor(world: World, life: Life, sockets: Sockets) {
    this.#world = world
    this.life = life
    this.#sockets = sockets
    this.activity.lastAtMs = world.time.nowMs
  }

  hangUp(reason: string): void {
    void this.life.step("the channel closes").then(() => {
      this.#isClosed = true
      this.#closed.resolve({ reason })
    })
  }

  /** No user of the simulation has files; the heat moves one. */
  open(): unknown {
    const result = this.#talk("move a file", () => ({ bytes: 0, entries: 0 }))
    result.catch(() => undefined)
    return {
      output: (async function* (): AsyncGenerator<Uint8Array> {
        await result
        yield Buffer.from("heat")
      })(),
      result,
      write: async () => undefined,
      endInput() {},
      close() {},
    }
  }

  close(): void {
    this.#isClosed = true
    this.#sockets.clients = this.#sockets.clients.filter((client) => client !== this)
    this.#closed.resolve({ reason: "closed" })
  }

  #answering(): Memory {
    if (this.#isClosed) throw new AppError("unavailable", "the guest's channel is closed")
    const { process, clients } = this.#sockets
    const memory = process?.memory
    const isHeard =
      process &&
      this.#world.processes.has(process.pid) &&
      !process.isPaused &&
      !process.isHung &&
      clients[0] === this
    if (!isHeard || !memory) throw new AppError("unavailable", "the guest did not answer in time")
    return memory
  }

  async #talk<T>(label: string, act: (memory: Memory) => T): Promise<T> {
    await this.life.step(`guest: ${label}`, [() => new AppError("unavailable", `injected: ${label}`)])
    // A message to a paused guest waits for it, up to the caller's deadline.
    for (let waits = 0; this.#sockets.process?.isPaused && waits < pausedStepsMax; waits++) {
      await this.life.step(`guest: ${label} waits`)
    }
    const result = act(this.#answering())
    await this.life.step(`guest: ${label} done`)
    return result
  }

  waitReady(): Promise<unknown> {
    return this.#talk("hello", () => ({}))
  }

  async ask<Op extends keyof GuestQuestions>(question: GuestQuestion<Op>): Promise<GuestAnswer<Op>> {
    const answer = answers[question.op]
    if (!answer) throw new Error(`no user of the simulation asks for ${question.op}`)
    return this.#talk(question.op, (memory) => answer(memory, question))
  }

  watch(): void {}

  /** `mark VALUE` sets what is in memory, `write VALUE` what is on disk; the output tells what it found afterwards. */
  get processes(): GuestProcesses {
    const unused = () => {
      throw new Error("no user of the simulation asks for that")
    }
    const rest = { startDetached: unused, attach: unused, list: unused, get: unused, wait: unused }
    const more = { signal: unused, input: unused, resize: unused, forget: unused }
    return { ...rest, ...more, start: (start) => this.#start(start) }
  }

  #start({ argv: [program, value = ""] = [] }: ProcessStart): GuestProcess {
    const { openStreams } = this.activity
    this.activity.openStreams = openStreams + 1
    this.activity.lastAtMs = this.#world.time.nowMs
    const answer = this.#talk(`exec ${program}`, (memory) => {
      const disk = this.#sockets.process?.directory.disk
      if (!disk) throw new AppError("unavailable", "the disk is gone")
      const isNobody = memory.owner === undefined || memory.owner === templateOwner
      if (!memory.isFresh) this.#world.violation("a command runs before the guest has new random numbers")
      if (isNobody) this.#world.violation("a command runs in a guest that is nobody yet")
      if (!memory.isFresh || isNobody) throw new AppError("conflict", "the guest is not personalised")
      if (program === "mark") memory.marker = value
      if (program === "write") {
        disk.file = value
        disk.version++
      }
      return JSON.stringify({ owner: memory.owner, marker: memory.marker, file: disk.file })
    }).finally(() => {
      this.activity.openStreams--
      this.activity.lastAtMs = this.#world.time.nowMs
    })
    const ended = { exitCode: 0, signal: null, reason: "exited", by: null, detail: null } as const
    const result = answer.then(() => ({ state: "ended", ended }) as const)
    // An answer that nobody awaits is no unhandled rejection in the real one either.
    answer.catch(() => undefined)
    result.catch(() => undefined)
    return {
      attached: new Promise(() => undefined),
      output: (async function* (): AsyncGenerator<OutputChunk> {
        yield { channel: "stdout", bytes: Buffer.from(await answer) }
      })(),
      result,
      write: async () => undefined,
      endInput() {},
      signal() {},
      resize() {},
      kill() {},
      leave() {},
    }
  }
}
