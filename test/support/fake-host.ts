/**
 * A host without machines, for tests of everything above it: it keeps the ports' promises in memory. A guest here runs
 * the few programs of `fake-programs.ts`, and has the files of `fake-files.ts`.
 */

import { AppError } from "@bhatti/contract/errors"
import type {
  AbnormalEnd,
  GuestAnswer,
  GuestIdentity,
  GuestOpening,
  GuestOpenings,
  GuestQuestion,
  GuestQuestions,
  HookFailure,
  MemoryKill,
} from "@bhatti/contract/guest"
import type { ImageConfig } from "@bhatti/contract/image-config"
import { limits } from "@bhatti/contract/limits"
import type { Header } from "tar-stream"
import type {
  Attachment,
  Guest,
  GuestConnection,
  GuestDownload,
  GuestProcesses,
  GuestStreams,
  GuestTransfer,
  GuestWatcher,
  Host,
  ImagePrograms,
  ImageService,
  Kernel,
  Machine,
  MachineEnd,
  Started,
  Template,
  TemplateSpec,
} from "../../src/core/host.ts"
import { unlessAborted } from "../../src/core/unless-aborted.ts"
import { randomHex } from "../../src/lib/random-hex.ts"
import { closedAmong } from "../../src/network/internal.ts"
import { fakeBuildContexts } from "./fake-build-contexts.ts"
import { type FakeFiles, FakeUnpacking, type NewFile } from "./fake-files.ts"
import { type FakePacks, fakePacks } from "./fake-packs.ts"
import type { FakeProcess } from "./fake-process.ts"
import { fakeProcesses } from "./fake-processes.ts"
import type { SessionProgram } from "./fake-programs.ts"
import { type FakePulls, fakePulls } from "./fake-pulls.ts"
import { type FakeMemory, FakeSystems } from "./fake-systems.ts"
import { FakeWatch } from "./fake-watch.ts"

export type FakeHost = Host & {
  pulls: FakePulls
  packs: FakePacks
  running: Map<number, { directory: string }>
  directories: Set<string>
  identities: GuestIdentity[]
  /** The network's permissions now, by sandbox; and whose links are up. */
  attached: Map<string, Attachment>
  linked: Set<string>
  /** Directories that hold a memory snapshot. */
  memories: Set<string>
  /** When every template was last asked for. */
  templatesUsedMs: number
  /** The disk of a template in the making. */
  templateDraftMib: number
  /** The images that the last clean-up kept. */
  neededImages: string[]
  /** Requests to free the memory of templates: how long each must have been unused. */
  released: number[]
  /** Finished named snapshots, and whether they hold memory. */
  kept: Map<string, { hasMemory: boolean }>
  /** The rows beside the disks, and why directories were set aside, by id. */
  keptTexts: Map<string, string>
  asides: Map<string, string>
  templatesLainOn: string[] | undefined
  /** Snapshots in the making. */
  drafts: Set<string>
  /** How often a guest gave back what it had deleted. */
  trims: number
  /** Hooks of every clone that fail. */
  failedHooks: HookFailure[]
  /** Programs of images that run in their templates. */
  imagePrograms: ImagePrograms | undefined
  imageServices: readonly ImageService[] | undefined
  imageConfig: ImageConfig | undefined
  /** The image says that it has an init; that is there if `files` has `/sbin/init`. */
  imageHasInit: boolean
  initsStarted: number
  /** The guest's agent knows nothing of images' own configuration. */
  isAgentOld: boolean
  /** A service of the guest that was met last ends again and again with that exit code. */
  failService: (name: string, exitCode: number) => void
  /** How often a machine was paused. */
  pauses: number
  /** Machines that stand still. */
  halts: Map<number, "paused" | "disk_full">
  /** Why memory snapshots do not fit this host. */
  misfit: string | undefined
  /** The damage of all disks. */
  diskDamage: string | undefined
  /** Processor time that every machine says it has used. */
  cpuMsNow: number
  /** The traffic that every machine reports. */
  trafficNow: { disk: number; network: number }
  /** Why machines end that nobody has killed. */
  isOutOfMemory: boolean
  /** How guests have ended them. */
  end: MachineEnd | undefined
  /** The next failure: the named step throws, with this message if there is one. */
  failAt: string | undefined
  failure: AppError | undefined
  /** Lets the named step wait, once. */
  hold: (step: string) => Held
  /** Waits where a test holds that step. */
  reach: (step: string) => Promise<void>
  /** Commands that were run in any guest, in order. */
  processes: FakeProcess[]
  /** Signals that were sent to sessions of any guest. */
  killed: { session: string; signal: string }[]
  sessionProgram: SessionProgram
  /** A session's output, by its id or name. */
  shownBy: (session: string) => Iterable<Uint8Array> | AsyncIterable<Uint8Array>
  /** The files of every new guest, by path. */
  files: Map<string, NewFile>
  /** In place of every archive that is read. */
  archive: (() => AsyncIterable<Uint8Array>) | undefined
  /** The archive that was written last. */
  unpacked: { path: string; headers: Header[] } | undefined
  /** Names of images besides the default one. */
  moreImages: string[]
  /** The host's own images that were asked for, and those that were made; each waits for the gate. */
  installs: string[]
  installedImages: string[]
  installGate: Promise<unknown>
  freeMibNow: number
  /** Space that each part of a backup takes. */
  backupPartMib: number
  /** The guests' answers about their root, and about a boot that was to repair it. */
  isRootReadOnly: boolean
  repair: { exitCode: number; output: string } | undefined
  /** The sizes of disks that take more than 1 MiB. */
  overlaysMib: Map<string, number>
  availableMemoryMibNow: number
  slotsInUseNow: number[]
  imagesMissing: boolean
  /** Running work in all guests. */
  ongoing: { commands: number; uploads: number; downloads: number }
  /** In place of the bytes of every file that is read. */
  download: (() => AsyncIterable<Uint8Array>) | undefined
  /** How many entries of a directory a guest tells. */
  listedMax: number
  /** The watches of all guests that run. */
  watches(): FakeWatch[]
  /** Called before a guest reads a file. */
  onRead: ((files: FakeFiles) => void) | undefined
  /** Streams that are open on every guest's channel, as it says. */
  openStreams: number
  /** When any guest was last asked, by the real clock. */
  askedAtMs: number
  /** Every guest's answer about its next timer; undefined: its agent does not know the question. */
  nextTimerMs: number | null | undefined
  /** Processor time that the answer takes. */
  nextTimerCpuMs: number
  /** Lets a test change a guest that is connected to. */
  opened: (guest: Guest) => Guest
  /** The session `init` of the guest that was met last ends. */
  endInit: (exitCode: number, signal?: string | null) => void
  /** The kernel of the newest guest kills a process. */
  killForMemory: (kill: MemoryKill) => void
  /** The newest guest reports an end. */
  endAbnormally: (end: AbnormalEnd) => void
  /** A connection to a port of any guest. */
  dial: (port: number) => GuestConnection
}

/** A step that waits. */
export type Held = { reached: Promise<void>; release: () => void }

export function fakeHost(): FakeHost {
  let nextPid = 1000
  const holds = new Map<string, { reach: () => void; released: Promise<void> }>()
  const kernel: Kernel = { hash: "kernel" }
  const template: Template = { id: "template-1", diskMib: 8192 }
  const templates = new Map<string, Template>()
  let nextTemplate = 1
  const at = (id: string) => `/fake/${id}`
  const run = async (id: string, start: (directory: string) => void): Promise<Started> => {
    const process = { pid: nextPid++, startTicks: 1, bootId: "fake" }
    start(at(id))
    systems.listening.add(at(id))
    host.running.set(process.pid, { directory: at(id) })
    return { machine: { id, process, memoryBase: "template" }, guest: connect(at(id)) }
  }
  const connect = (directory: string): Guest => {
    if (!systems.listening.has(directory))
      throw new AppError("unavailable", "cannot connect to the guest's channel")
    const guest = new FakeGuest(host, systems, directory)
    guestsByDirectory.set(directory, (guestsByDirectory.get(directory) ?? new Set()).add(guest))
    return host.opened(guest)
  }
  const systems = new FakeSystems()
  const guestsByDirectory = new Map<string, Set<FakeGuest>>()
  const end = (directory: string) => {
    systems.end(directory)
    const guests = guestsByDirectory.get(directory) ?? []
    guestsByDirectory.delete(directory)
    for (const guest of guests) guest.close()
  }
  const placeIn = (from: string, sandboxId: string, hasMemory: boolean) => {
    host.directories.add(sandboxId)
    systems.copy(from, `/fake/${sandboxId}`)
    if (hasMemory) host.memories.add(`/fake/${sandboxId}`)
    return { hasMemory }
  }
  /** As QEMU's monitor: gone with its machine. */
  /** Ids of the further disks, by machine. */
  const plugged = new Map<string, Set<string>>()
  const ask = ({ process }: Machine) => {
    if (!host.running.has(process.pid))
      throw new AppError("unavailable", "cannot connect to the machine's monitor")
  }
  const fail = (step: string) => {
    if (host.failAt === step) throw host.failure ?? new AppError("unavailable", `injected at ${step}`)
  }
  const reach = async (step: string) => {
    const hold = holds.get(step)
    holds.delete(step)
    hold?.reach()
    await hold?.released
    fail(step)
  }
  const host: FakeHost = {
    running: new Map(),
    directories: new Set(),
    identities: [],
    memories: new Set(),
    templatesUsedMs: 0,
    templateDraftMib: 0,
    neededImages: [],
    released: [],
    kept: new Map(),
    keptTexts: new Map(),
    asides: new Map(),
    templatesLainOn: [],
    drafts: new Set(),
    trims: 0,
    failedHooks: [],
    imagePrograms: undefined,
    imageServices: undefined,
    imageConfig: undefined,
    imageHasInit: false,
    initsStarted: 0,
    isAgentOld: false,
    failService: () => undefined,
    pauses: 0,
    halts: new Map(),
    misfit: undefined,
    diskDamage: undefined,
    attached: new Map(),
    linked: new Set(),
    cpuMsNow: 0,
    trafficNow: { disk: 0, network: 0 },
    isOutOfMemory: false,
    end: undefined,
    failAt: undefined,
    failure: undefined,
    hold(step) {
      const reached = Promise.withResolvers<void>()
      const released = Promise.withResolvers<void>()
      holds.set(step, { reach: reached.resolve, released: released.promise })
      return { reached: reached.promise, release: released.resolve }
    },
    reach,
    processes: [],
    killed: [],
    sessionProgram: "echo",
    shownBy: () => [Buffer.from("what it showed\n")],
    files: new Map(),
    archive: undefined,
    unpacked: undefined,
    moreImages: [],
    installs: [],
    installedImages: [],
    installGate: Promise.resolve(),
    freeMibNow: 100_000,
    backupPartMib: 0,
    isRootReadOnly: false,
    repair: undefined,
    overlaysMib: new Map(),
    availableMemoryMibNow: 100_000,
    slotsInUseNow: [],
    imagesMissing: false,
    ongoing: { commands: 0, uploads: 0, downloads: 0 },
    download: undefined,
    listedMax: 100_000,
    onRead: undefined,
    watches: () => [...systems.running.values()].flatMap(({ watches }) => [...watches.values()]),
    openStreams: 0,
    askedAtMs: 0,
    nextTimerMs: null,
    nextTimerCpuMs: 0,
    opened: (guest) => guest,
    endInit: () => undefined,
    killForMemory: () => undefined,
    endAbnormally: () => undefined,
    dial: (port) => {
      throw new AppError("unavailable", `nothing listens on port ${port}`)
    },
    network: {
      closedAmong: (cidrs) => closedAmong(cidrs, { subnet: "10.209.0.0/16", opened: ["172.31.0.0/24"] }),
      identityOf: ({ slot }) => ({
        mac: "02:00:00:00:00:01",
        address: `10.0.0.${slot}`,
        prefix: 32,
        gateway: "10.0.0.254",
        dns: ["10.0.0.254"],
        mtu: 1500,
      }),
      async linkUp({ id }) {
        fail("link")
        host.linked.add(id)
      },
      async attach(attachment) {
        fail("attach")
        host.attached.set(attachment.id, attachment)
      },
      async detach(id) {
        host.attached.delete(id)
        host.linked.delete(id)
      },
      async resync(attachments) {
        host.attached = new Map(attachments.map((one) => [one.id, one]))
      },
    },
    zygotes: null,
    machines: {
      async start({ id, template: { id: from } }, { kind }) {
        const step = ({ template: "clone", memory: "restore", disk: "boot" } as const)[kind]
        await reach(step)
        return run(id, (directory) => systems[step](directory, `/template/${from}`))
      },
      connect: async ({ id }) => connect(at(id)),
      async checkDisk() {
        if (host.diskDamage !== undefined)
          throw new AppError("unavailable", host.diskDamage, { retryable: false })
        return { missingMib: 0 }
      },
      checkSnapshot: async (id) => {
        if (host.misfit !== undefined) return { fits: false, reason: host.misfit }
        return host.memories.has(at(id))
          ? { fits: true, memoryMib: 20 }
          : { fits: false, reason: "there is no memory snapshot" }
      },
      async plugDisk(machine, { id }) {
        ask(machine)
        const disks = plugged.get(machine.id) ?? new Set()
        if (disks.has(id)) throw new AppError("conflict", `the machine has a disk ${id} already`)
        plugged.set(machine.id, disks.add(id))
      },
      async unplugDisk(machine, id) {
        ask(machine)
        plugged.get(machine.id)?.delete(id)
      },
      async pause(machine) {
        fail("pause")
        ask(machine)
        host.pauses++
        host.halts.set(machine.process.pid, "paused")
      },
      async resume(machine) {
        ask(machine)
        host.halts.delete(machine.process.pid)
      },
      async haltOf(machine) {
        ask(machine)
        return host.halts.get(machine.process.pid) ?? "none"
      },
      async saveSnapshot(machine, options) {
        await reach("save")
        ask(machine)
        const into = options ? `/draft/${options.draft}` : at(machine.id)
        systems.save(at(machine.id), into)
        host.memories.add(into)
      },
      async removeSnapshot(id) {
        host.memories.delete(at(id))
      },
      isRunning: ({ process }) => host.running.has(process.pid),
      async fateOf({ process }) {
        if (host.running.has(process.pid)) return { how: "running" }
        if (host.end) return host.end
        if (host.isOutOfMemory) return { how: "out_of_memory" }
        return { how: process.bootId === "fake" ? "killed" : "host_restart" }
      },
      removeUnusedQemus: async () => [],
      lastEndOf: async () => host.end,
      find(id) {
        const pid = [...host.running].find(([, machine]) => machine.directory === at(id))?.[0]
        if (pid === undefined) return undefined
        return { id, process: { pid, startTicks: 1, bootId: "fake" }, memoryBase: "template" }
      },
      usageOf: () => ({
        cpuMs: host.cpuMsNow,
        diskBytes: host.trafficNow.disk,
        networkBytes: host.trafficNow.network,
      }),
      untouchedMib: async () => undefined,
      availableMemoryMib: () => host.availableMemoryMibNow,
      setUrgency() {},
      async kill(machine) {
        const directory = at(machine.id)
        if ("process" in machine) {
          await reach("kill")
          host.running.delete(machine.process.pid)
        } else
          for (const [pid, running] of host.running)
            if (running.directory === directory) host.running.delete(pid)
        end(directory)
      },
      isSlotInUse: (slot) => host.slotsInUseNow.includes(slot),
      async growDisk() {
        fail("grow")
      },
      diagnose: async () => ({ qemu: "", console: "" }),
    },
    templates: {
      find: async (spec) => templates.get(JSON.stringify(spec)),
      async get(id) {
        const found = [...templates.values()].find((one) => one.id === id)
        if (!found) throw new AppError("unavailable", `the template ${id} is missing`, { retryable: false })
        return found
      },
      async begin(spec) {
        await reach("template")
        systems.boot("/template")
        systems.listening.add("/template")
        return {
          guest: connect("/template"),
          diagnose: async () => ({ qemu: "", console: "" }),
          measureDiskMib: async () => host.templateDraftMib,
          async commit() {
            const made = { ...template, id: `template-${nextTemplate++}` }
            systems.save("/template", `/template/${made.id}`)
            end("/template")
            templates.set(JSON.stringify(spec), made)
            return made
          },
          [Symbol.asyncDispose]: async () => end("/template"),
        }
      },
      measure: async () =>
        [...templates].map(([spec, { id }]) => ({
          id,
          mib: 100,
          imageHash: (JSON.parse(spec) as TemplateSpec).image.hash,
          owner: (JSON.parse(spec) as TemplateSpec).programs?.owner ?? null,
          lastUsedMs: host.templatesUsedMs,
        })),
      async remove(id) {
        for (const [spec, one] of templates) if (one.id === id) templates.delete(spec)
        return true
      },
      async releaseOwned({ unusedForMs }) {
        host.released.push(unusedForMs)
      },
      async removeUnfinished() {},
    },
    disks: {
      async createSandbox({ id }) {
        fail("disk")
        host.directories.add(id)
      },
      async removeSandbox(id) {
        host.directories.delete(id)
        host.memories.delete(`/fake/${id}`)
        systems.remove(`/fake/${id}`)
      },
      async measureMib(id, part) {
        const mib = host.overlaysMib.get(id) ?? 1
        return part === "overlay" ? mib : Math.ceil(mib)
      },
      stampOf: async () => "",
      listSandboxes: async () => [...host.directories],
      freeMib: async () => host.freeMibNow,
    },
    backups: {
      begin: async (directory) => ({
        isBeside: true,
        isFull: false,
        async add({ kind }) {
          if (kind !== "common") host.freeMibNow -= host.backupPartMib
        },
        commonMib: async () => 1,
        addDatabase: (copy) => copy(`${directory}/bhatti.db`),
        finish: async () => ({ bytes: 0 }),
        [Symbol.asyncDispose]: async () => undefined,
      }),
    },
    keptRows: {
      async write(kind, id, text) {
        const isThere = kind === "sandbox" ? host.directories.has(id) : host.kept.has(id)
        if (isThere) host.keptTexts.set(id, text)
        return isThere
      },
      async setAside(kind, id, reason) {
        if (kind === "sandbox") host.directories.delete(id)
        else host.kept.delete(id)
        host.asides.set(id, reason)
        return `/aside/${id}`
      },
      templatesUnderUnknown: () => host.templatesLainOn,
    },
    snapshots: {
      async begin(id) {
        await reach("draft")
        host.drafts.add(id)
      },
      async copyAhead() {
        fail("copy ahead")
      },
      async capture({ id, sandboxId, storedMemory }) {
        await reach("capture")
        systems.copy(`/fake/${sandboxId}`, `/draft/${id}`)
        if (storedMemory) host.memories.add(`/draft/${id}`)
      },
      async commit(id) {
        fail("commit")
        host.drafts.delete(id)
        systems.copy(`/draft/${id}`, `/kept/${id}`)
        systems.remove(`/draft/${id}`)
        host.kept.set(id, { hasMemory: host.memories.delete(`/draft/${id}`) })
        return { bytes: 1024 * 1024 }
      },
      async place({ id, sandboxId, draft }) {
        await reach("place")
        if (draft) return placeIn(`/draft/${id}`, sandboxId, host.memories.has(`/draft/${id}`))
        return placeIn(`/kept/${id}`, sandboxId, host.kept.get(id)?.hasMemory ?? false)
      },
      async remove(id) {
        host.kept.delete(id)
        systems.remove(`/kept/${id}`)
        host.drafts.delete(id)
        host.memories.delete(`/draft/${id}`)
        systems.remove(`/draft/${id}`)
      },
      list: async () => [...host.kept.keys()],
      async removeUnfinished() {
        for (const id of host.drafts) await host.snapshots.remove(id)
      },
    },
    ...(() => {
      const pulls = fakePulls((name) => host.moreImages.push(name))
      return { pulls, packs: fakePacks(pulls, (name) => host.moreImages.push(name)) }
    })(),
    buildContexts: fakeBuildContexts(),
    images: {
      recipes: [
        { name: limits.imageDefault, summary: "The default" },
        { name: "docker", summary: "Containers" },
      ],
      async install(name, { signal, onStep }) {
        host.installs.push(name)
        onStep("install Debian")
        await unlessAborted(host.installGate, signal)
        host.installedImages.push(name)
      },
      async list() {
        if (host.imagesMissing) return []
        const names = [limits.imageDefault, ...host.installedImages, ...host.pulls.disks.keys()]
        return names.map((name) => ({
          name,
          hash: host.pulls.disks.get(name)?.hash ?? "image",
          diskMib: 8192,
          usedMib: 700,
          kernelVersion: "6.1.0",
          installedAt: "2026-01-01T00:00:00.000Z",
        }))
      },
      async readImage(name) {
        const isThere = [limits.imageDefault, ...host.moreImages, ...host.installedImages].includes(name)
        if (!isThere || host.imagesMissing) {
          throw new AppError("not_found", `no image named "${name}"`, {
            subject: { kind: "installation", ...(name === "docker" && { image: name }) },
          })
        }
        return {
          name,
          hash: host.pulls.disks.get(name)?.hash ?? "image",
          file: "/image",
          diskMib: 8192,
          programs: host.imagePrograms,
          services: host.imageServices,
          config: host.imageConfig ?? host.pulls.disks.get(name)?.config,
          initSystem: host.imageHasInit,
        }
      },
      readKernel: async () => kernel,
      checkImage: async () => undefined,
      repairKernel: async (given) => ({
        ...given,
        arguments: ["bhatti.repair"],
        [Symbol.dispose]: () => undefined,
      }),
      async removeUnused(neededImages) {
        host.neededImages = [...neededImages]
        return []
      },
    },
  }
  return host
}

type Answers = {
  [Op in keyof GuestQuestions]: (
    fields: GuestQuestions[Op]["fields"],
    options: { deadlineMs: number },
  ) => GuestAnswer<Op> | Promise<GuestAnswer<Op>>
}

/** Replaces some of a guest's answers. */
export function answering(guest: Guest, instead: Partial<Answers>): Guest {
  const ask = guest.ask.bind(guest)
  guest.ask = async (question, options) => {
    const answer = instead[question.op]
    return answer ? answer(question, options) : ask(question, options)
  }
  return guest
}

const runningService = {
  state: "running",
  restarts: 0,
  process: "p1",
  ended: null,
  failure: null,
  failureReason: null,
  isFailing: false,
  retryMs: null,
} as const

const noServiceProgram = { failure: 'no program "missing"', failureReason: "no_program" }

class FakeGuest implements Guest {
  readonly #host: FakeHost
  readonly #systems: FakeSystems
  readonly #closed = Promise.withResolvers<{ reason: string }>()
  readonly closed = this.#closed.promise
  /** Work that the loss of the channel breaks. */
  readonly #open = new Set<(lost: AppError) => void>()
  #lost: AppError | undefined

  readonly #directory: string
  readonly processes: GuestProcesses
  #watcher: GuestWatcher | undefined

  constructor(host: FakeHost, systems: FakeSystems, directory: string) {
    this.#host = host
    this.#systems = systems
    this.#directory = directory
    this.processes = fakeProcesses({
      host,
      memory: () => this.#memory,
      answer: (options) => this.#answerAllowed(options),
      refusal: (cwd) => this.#refusal ?? (this.#files.isDirectory(cwd) ? undefined : noDirectory(cwd)),
      goesOn: (ended, client) => this.#goesOn("commands", ended, (lost) => client?.lose(lost)),
    })
    for (const [path, file] of host.files) if (!this.#files.has(path)) this.#files.add(path, file)
    host.failService = (name, exitCode) => {
      const found = this.#memory.services.find((one) => one.name === name)
      if (!found) throw new Error(`no service ${name}`)
      const ended = { exitCode, signal: null, reason: "exited", by: null, detail: null } as const
      Object.assign(found, { isFailing: true, restarts: 5, ended })
      this.#watcher?.onServiceFailing(found)
    }
    host.endInit = (exitCode, signal = null) => {
      const end = { exitCode, signal, reason: signal === null ? "exited" : "signal" } as const
      this.#memory.processes.find(({ command }) => command.name === "init")?.end(end)
      this.#watcher?.onNamedEnded({ process: "s1", name: "init", ended: { ...end, by: null, detail: null } })
    }
  }

  get #files(): FakeFiles {
    return this.#systems.diskOf(this.#directory)
  }

  get #memory(): FakeMemory {
    const memory = this.#systems.running.get(this.#directory)
    if (!memory) throw new AppError("unavailable", "the guest did not answer in time")
    return memory
  }

  /** Why the guest refuses what needs an identity. */
  get #refusal(): AppError | undefined {
    if (this.#lost) return this.#lost
    return this.#memory.isPersonalised ? undefined : new AppError("conflict", "the guest is not personalised")
  }

  /** Resolves when the guest answers; a paused one does so once it resumes. */
  async #answer({ deadlineMs }: { deadlineMs: number }): Promise<FakeMemory> {
    const endMs = performance.now() + deadlineMs
    const isHalted = () =>
      [...this.#host.halts.keys()].some((pid) => this.#host.running.get(pid)?.directory === this.#directory)
    while (!this.#lost && isHalted()) {
      if (performance.now() > endMs) throw new AppError("unavailable", "the guest did not answer in time")
      await Bun.sleep(5)
    }
    if (this.#lost) throw this.#lost
    return this.#memory
  }

  async #answerAllowed(options: { deadlineMs: number }): Promise<FakeMemory> {
    const memory = await this.#answer(options)
    if (this.#refusal) throw this.#refusal
    return memory
  }

  async #watchNamed(id: string, options: { deadlineMs: number }): Promise<FakeWatch> {
    const found = (await this.#answerAllowed(options)).watches.get(id)
    if (!found) throw new AppError("not_found", `no watch "${id}"`)
    return found
  }

  async waitReady(options: { deadlineMs: number }): Promise<unknown> {
    await this.#answer(options)
    return { generation: 1 }
  }

  async ask<Op extends keyof GuestQuestions>(
    question: GuestQuestion<Op>,
    options: { deadlineMs: number },
  ): Promise<GuestAnswer<Op>> {
    return this.#answers[question.op](question, options)
  }

  readonly #answers: Answers = {
    ping: async (_, options) => {
      const { isPersonalised } = await this.#answer(options)
      return {
        version: "fake",
        personalised: isPersonalised,
        bootFailures: [],
        rootReadOnly: this.#host.isRootReadOnly,
        repair: this.#host.repair,
      }
    },
    personalise: async ({ identity }, options) => {
      if (this.#host.failAt === "personalise") throw new AppError("unavailable", "injected at personalise")
      const memory = await this.#answer(options)
      Object.assign(memory, { env: identity.env, isPersonalised: true, hasIdentity: true })
      this.#host.identities.push(identity)
      return {
        bootId: "fake",
        isPending: memory.isHeld || this.#host.failedHooks.length > 0,
        knowsImages: identity.image !== undefined && !this.#host.isAgentOld,
      }
    },
    refresh: async (_, options) => {
      const memory = await this.#answer(options)
      if (!memory.hasIdentity) throw new AppError("conflict", "the guest has no identity yet")
      memory.isPersonalised = true
    },
    startServices: async ({ services }, options) => {
      await this.#host.reach("services")
      const memory = await this.#answerAllowed(options)
      for (const { name, argv, restart, program } of services) {
        const isThere = memory.services.some((one) => one.name === name)
        const failed = program === "missing" && noServiceProgram
        if (!isThere) memory.services.push({ ...runningService, name, argv: [...argv], restart, ...failed })
      }
      return memory.services
    },
    setServices: async ({ services }, options) => {
      await this.#host.reach("services")
      const memory = await this.#answerAllowed(options)
      if (services.some(({ program }) => program === "missing"))
        throw new AppError("not_found", noServiceProgram.failure, { reason: "no_program" })
      memory.services = services.map(({ name, argv, restart }) => {
        const same = memory.services.find((one) => one.name === name && one.argv.at(-1) === argv.at(-1))
        return same ?? { ...runningService, name, argv: [...argv], restart }
      })
      await this.#host.reach("services answer")
      return memory.services
    },
    listServices: async (_, options) => (await this.#answerAllowed(options)).services,
    controlService: async ({ service, action }, options) => {
      const memory = await this.#answerAllowed(options)
      const found = memory.services.find(({ name }) => name === service)
      if (!found) throw new AppError("not_found", `no service "${service}"`)
      found.state = action === "stop" ? "stopped" : "running"
      return memory.services
    },
    startInit: async (_, options) => {
      await this.#host.reach("init system")
      await this.#answerAllowed(options)
      if (!this.#files.has("/sbin/init"))
        throw new AppError("not_found", "the image has no init", { reason: "no_program" })
      this.#host.initsStarted++
    },
    startClone: async (_, options) => {
      await this.#host.reach("start clone")
      const memory = await this.#answerAllowed(options)
      memory.isHeld = false
      return this.#host.failedHooks
    },
    quiesce: async ({ hold = false }, options) => {
      const memory = await this.#answer(options)
      memory.isHeld ||= hold
      memory.isPersonalised = false
      for (const watch of memory.watches.values()) watch.interrupt()
    },
    shutdown: async (_, options) => {
      if (this.#host.failAt === "shutdown") throw new AppError("unavailable", "injected at shutdown")
      await this.#answer(options)
      for (const [pid, { directory }] of this.#host.running)
        if (directory === this.#directory) this.#host.running.delete(pid)
    },
    nextTimer: () => {
      const { nextTimerMs } = this.#host
      this.#host.cpuMsNow += this.#host.nextTimerCpuMs
      if (nextTimerMs === undefined)
        throw new AppError("unavailable", 'this agent has no operation "next_timer"')
      return { dueMs: nextTimerMs }
    },
    trim: () => {
      if (this.#host.failAt === "trim")
        throw new AppError("unavailable", 'this agent has no operation "trim"')
      this.#host.trims++
    },
    ports: () => [3000, 22].map((port) => ({ port, address: "127.0.0.1" })),
    findOwner: ({ owner }) => {
      if (owner !== "root") throw new AppError("invalid", `no user "${owner}"`, { reason: "no_user" })
      return { uid: 0, gid: 0 }
    },
    listFiles: async ({ path }, options) => {
      await this.#answerAllowed(options)
      const all = this.#files.list(path)
      const files = all.slice(0, this.#host.listedMax)
      return { files, isTruncated: all.length > files.length }
    },
    statFile: async ({ path }, options) => {
      await this.#answerAllowed(options)
      return this.#files.stat(path)
    },
    removeFile: ({ path, recursive }) => this.#files.remove(path, { recursive }),
    makeDirectory: ({ path, mode, owner }) =>
      this.#files.add(path, { type: "directory", mode, ...ownedBy(owner) }),
    moveFile: ({ from, to }) => this.#files.move(from, to),
    setAttributes: async ({ path, set, remove }, options) => {
      await this.#answerAllowed(options)
      this.#files.setAttributes(path, set, remove)
    },
    openWatch: async ({ path, recursive }, options) => {
      const { watches } = await this.#answerAllowed(options)
      if (!this.#files.isDirectory(path)) throw new AppError("not_found", `no file "${path}"`)
      const watch = `w${randomHex(8)}`
      watches.set(watch, new FakeWatch({ path, recursive }))
      return { watch }
    },
    readWatch: async ({ watch, after }, options) => (await this.#watchNamed(watch, options)).read(after),
    awaitWatch: async ({ watch, after }, options) => {
      const found = await this.#watchNamed(watch, options)
      const lost = this.closed.then(() => Promise.reject(this.#lost))
      const late = Bun.sleep(options.deadlineMs).then(() => {
        throw new AppError("unavailable", "the guest did not answer in time")
      })
      return Promise.race([found.wait(after), quiet(lost), quiet(late)])
    },
    removeWatch: async ({ watch }, options) => {
      const found = await this.#watchNamed(watch, options)
      this.#memory.watches.delete(watch)
      found.end("it was removed")
    },
  }

  open<Op extends keyof GuestOpenings>(opening: GuestOpening<Op>): GuestStreams[Op] {
    return this.#openings[opening.op](opening)
  }

  readonly #openings: { [Op in keyof GuestOpenings]: (opening: GuestOpenings[Op]) => GuestStreams[Op] } = {
    readFile: (opening) => this.#readFile(opening),
    writeFile: (opening) => this.#writeFile(opening),
    readArchive: (opening) => this.#readArchive(opening),
    writeArchive: (opening) => this.#writeArchive(opening),
    dial: (opening) => this.#dial(opening),
  }

  get activity(): { openStreams: number; lastAtMs: number } {
    return { openStreams: this.#host.openStreams, lastAtMs: this.#host.askedAtMs }
  }

  watch(watcher: GuestWatcher): void {
    this.#watcher = watcher
    this.#host.killForMemory = (kill) => watcher.onMemoryKill(kill)
    this.#host.endAbnormally = (end) => watcher.onAbnormalEnd(end)
  }

  /** Counts what goes on, and breaks it when the channel is lost. */
  #goesOn(
    what: "commands" | "uploads" | "downloads",
    result: Promise<unknown>,
    breakOff: (lost: AppError) => void,
  ): void {
    const { ongoing } = this.#host
    ongoing[what]++
    this.#open.add(breakOff)
    void result
      .catch(() => undefined)
      .finally(() => {
        ongoing[what]--
        this.#open.delete(breakOff)
      })
  }

  #readFile({ path, offset = 0, limit }: GuestOpenings["readFile"]): GuestDownload {
    try {
      if (this.#refusal) throw this.#refusal
      this.#host.onRead?.(this.#files)
      const { file, bytes: whole } = this.#files.read(path)
      const bytes = whole.subarray(offset, limit === undefined ? undefined : offset + limit)
      const transfer = this.#sending(this.#host.download?.() ?? [bytes], { bytes: bytes.length, entries: 1 })
      return { ...transfer, file: Promise.resolve(file) }
    } catch (error) {
      return { ...refusedTransfer(error), file: quiet(Promise.reject(error)) }
    }
  }

  /** A stream to the host, which the loss of the channel breaks. */
  #sending(
    chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
    sum: { bytes: number; entries: number },
  ): GuestTransfer {
    const result = Promise.withResolvers<{ bytes: number; entries: number }>()
    this.#goesOn("downloads", quiet(result.promise), result.reject)
    const lost = quiet(result.promise.then(() => new Promise<never>(() => undefined)))
    const parts = Symbol.asyncIterator in chunks ? chunks[Symbol.asyncIterator]() : chunks[Symbol.iterator]()
    return {
      ...transferOf([], result.promise),
      output: (async function* () {
        for (;;) {
          const step = await Promise.race([lost, parts.next()])
          if (step.done) return result.resolve(sum)
          yield step.value
        }
      })(),
      close: () => result.reject(new AppError("unavailable", "it was given up")),
    }
  }

  #writeFile({ path, mode = "0644", ...options }: GuestOpenings["writeFile"]): GuestTransfer {
    const { size, owner, attributes } = options
    if (this.#files.isDirectory(path))
      return refusedTransfer(new AppError("invalid", `"${path}": is a directory`))
    const content = new Bun.ArrayBufferSink()
    content.start({ asUint8Array: true })
    return this.#receiving({
      write: async (piece) => {
        await this.#host.reach("write")
        content.write(piece as Uint8Array<ArrayBuffer>)
      },
      finish: async () => {
        const bytes = content.end() as Uint8Array
        if (size !== undefined && size !== bytes.length)
          throw new AppError("invalid", "another size than was said")
        this.#files.add(path, { bytes, mode, ...ownedBy(owner), ...(attributes && { attributes }) })
        return { bytes: bytes.length, entries: 1 }
      },
    })
  }

  /** A stream from the host, which the loss of the channel breaks. */
  #receiving(options: {
    write: (bytes: Uint8Array) => Promise<void>
    finish: () => Promise<{ bytes: number; entries: number }>
  }): GuestTransfer {
    if (this.#refusal) return refusedTransfer(this.#refusal)
    const result = Promise.withResolvers<{ bytes: number; entries: number }>()
    this.#goesOn("uploads", quiet(result.promise), result.reject)
    return {
      output: (async function* () {})(),
      result: result.promise,
      write: (bytes) => options.write(bytes),
      endInput: () => void options.finish().then(result.resolve, result.reject),
      close: () => result.reject(new AppError("unavailable", "the upload was given up")),
    }
  }

  #readArchive({ path }: GuestOpenings["readArchive"]): GuestTransfer {
    try {
      return this.#sending(this.#host.archive?.() ?? this.#files.pack(path), { bytes: 0, entries: 0 })
    } catch (error) {
      return refusedTransfer(error)
    }
  }

  #writeArchive({ path }: GuestOpenings["writeArchive"]): GuestTransfer {
    const unpacking = new FakeUnpacking(this.#files, path)
    this.#host.unpacked = { path, headers: unpacking.headers }
    return this.#receiving({
      write: async (bytes) => {
        await this.#host.reach("unpack")
        unpacking.write(bytes)
      },
      finish: async () => {
        unpacking.end()
        return unpacking.done
      },
    })
  }

  #dial({ port }: GuestOpenings["dial"]): GuestConnection {
    try {
      return this.#host.dial(port)
    } catch (error) {
      const refused = quiet(Promise.reject(error))
      return { ...refusedTransfer(error), connected: refused, result: refused }
    }
  }

  close(): void {
    const reason = "this host closed it"
    const lost = new AppError("unavailable", `the channel to the guest is lost: ${reason}`, {
      reason: "channel_lost",
    })
    this.#lost = lost
    for (const breakOff of this.#open) breakOff(lost)
    this.#open.clear()
    this.#closed.resolve({ reason })
  }
}

function ownedBy(owner: { uid: number } | undefined): NewFile {
  return owner?.uid === 0 ? { owner: "root" } : {}
}

function quiet<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => undefined)
  return promise
}

/** Refused by the guest, as its result and its output say. */
function refusedTransfer(error: unknown): GuestTransfer {
  const result = quiet(Promise.reject(error))
  return {
    ...transferOf([], result),
    // biome-ignore lint/correctness/useYield: it fails before its first chunk
    output: (async function* (): AsyncGenerator<Uint8Array> {
      await result
    })(),
  }
}

function transferOf(
  chunks: Uint8Array[],
  result: Promise<{ bytes: number; entries: number }>,
): GuestTransfer {
  return {
    output: (async function* () {
      yield* chunks
    })(),
    result: quiet(result),
    write: async () => undefined,
    endInput: () => undefined,
    close: () => undefined,
  }
}

function noDirectory(path: string): AppError {
  return new AppError("invalid", `no directory "${path}"`, { reason: "no_directory" })
}
