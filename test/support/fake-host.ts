/**
 * A host without machines, for tests of everything above it: it keeps the ports' promises in memory. A guest here runs
 * the few programs in `programs`.
 */

import { AppError } from "../../src/contract/errors.ts"
import { limits } from "../../src/contract/limits.ts"
import type {
  Attachment,
  Guest,
  GuestCommand,
  GuestConnection,
  GuestDownload,
  GuestFile,
  GuestIdentity,
  GuestProcess,
  GuestSession,
  GuestStream,
  GuestTransfer,
  Host,
  Kernel,
  Machine,
  MachineEnd,
  OutputChunk,
  SessionEnd,
  SessionNotice,
  SessionRecord,
  SessionStart,
  Template,
} from "../../src/core/host.ts"
import { closedAmong } from "../../src/network/internal.ts"

export type FakeHost = Host & {
  running: Map<number, { directory: string }>
  directories: Set<string>
  identities: GuestIdentity[]
  /** What the network permits now, by sandbox; and whose links are up. */
  attached: Map<string, Attachment>
  linked: Set<string>
  /** Directories that hold a memory snapshot. */
  memories: Set<string>
  /** When every template was last asked for. */
  templatesUsedMs: number
  /** What the last clean-up kept of images. */
  neededImages: string[]
  /** Finished named snapshots, and whether they hold memory. */
  kept: Map<string, { hasMemory: boolean }>
  /** What lies beside disks of their rows, and why directories were set aside, by id. */
  keptTexts: Map<string, string>
  asides: Map<string, string>
  templatesLainOn: string[] | undefined
  /** Snapshots in the making. */
  drafts: Set<string>
  /** How often a guest gave back what it had deleted. */
  trims: number
  /** How often a machine was paused. */
  pauses: number
  /** Machines that stand still. */
  halts: Map<number, "paused" | "disk_full">
  /** Why memory snapshots do not fit this host. */
  misfit: string | undefined
  /** What is wrong with all disks. */
  diskDamage: string | undefined
  /** Processor time that every machine says it has used. */
  cpuMsNow: number
  /** What every machine says it has read and written. */
  trafficNow: { disk: number; network: number }
  /** Why machines end that nobody has killed. */
  isOutOfMemory: boolean
  /** How guests have ended them. */
  end: MachineEnd | undefined
  /** What goes wrong next: the named step throws. */
  failAt: string | undefined
  freeMibNow: number
  /** Space that each part of a backup takes. */
  backupPartMib: number
  /** What guests say of their root, and of a boot that was to repair it. */
  isRootReadOnly: boolean
  repair: { exitCode: number; output: string } | undefined
  /** What disks take that take more than 1 MiB. */
  overlaysMib: Map<string, number>
  availableMemoryMibNow: number
  slotsInUseNow: number[]
  imagesMissing: boolean
  /** What goes on in all guests. */
  ongoing: { commands: number; uploads: number; downloads: number }
  /** In place of the bytes of every file that is read. */
  download: (() => AsyncIterable<Uint8Array>) | undefined
  /** How many entries of a directory a guest tells. */
  listedMax: number
  /** Streams that are open on every guest's channel, as it says. */
  openStreams: number
  /** What every guest answers about its next timer; undefined: its agent does not know the question. */
  nextTimerMs: number | null | undefined
  /** Of processor time, for that answer. */
  nextTimerCpuMs: number
  /** The session `init` of the guest that was met last ends. */
  endInit: (exitCode: number, signal?: string | null) => void
  /** A connection to a port of any guest. */
  dial: (port: number) => GuestConnection
}

export function fakeHost(): FakeHost {
  let nextPid = 1000
  const kernel: Kernel = { hash: "kernel", vmlinux: "/vmlinux", initramfs: "/initramfs", version: "6.1" }
  const template: Template = { id: "template-1", diskMib: 8192, blankOverlayPath: "/template/blank" }
  const templates = new Map<string, Template>()
  let booting = ""
  let nextTemplate = 1
  const newMachine = (directory: string): Machine => ({
    process: { pid: nextPid++, startTicks: 1, bootId: "fake" },
    directory,
    memoryBase: "template",
  })
  const run = (machine: Machine): Machine => {
    host.running.set(machine.process.pid, { directory: machine.directory })
    return machine
  }
  const guestsByDirectory = new Map<string, FakeGuest>()
  const placeIn = (sandboxId: string, hasMemory: boolean) => {
    host.directories.add(sandboxId)
    if (hasMemory) host.memories.add(`/fake/${sandboxId}`)
    return { hasMemory }
  }
  const fail = (step: string) => {
    if (host.failAt === step) throw new AppError("unavailable", `injected at ${step}`)
  }
  const host: FakeHost = {
    running: new Map(),
    directories: new Set(),
    identities: [],
    memories: new Set(),
    templatesUsedMs: 0,
    neededImages: [],
    kept: new Map(),
    keptTexts: new Map(),
    asides: new Map(),
    templatesLainOn: [],
    drafts: new Set(),
    trims: 0,
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
    openStreams: 0,
    nextTimerMs: null,
    nextTimerCpuMs: 0,
    endInit: () => undefined,
    dial: (port) => {
      throw new AppError("unavailable", `nothing listens on port ${port}`)
    },
    network: {
      tapOf: (id) => `tap-${id}`,
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
      async guard() {},
      async close() {},
    },
    machines: {
      bootId: "fake",
      async findTemplate(spec) {
        return templates.get(JSON.stringify(spec))
      },
      async getTemplate(id) {
        const found = [...templates.values()].find((one) => one.id === id)
        if (!found) throw new AppError("unavailable", `the template ${id} is missing`, { retryable: false })
        return found
      },
      async loadTemplate() {},
      async beginTemplate() {
        fail("template")
        return { directory: "/template", diskPath: "/template/disk", blankOverlayPath: "/template/blank" }
      },
      bootTemplate: async (_draft, spec) => {
        booting = JSON.stringify(spec)
        return newMachine("/template")
      },
      async publishTemplate() {
        const made = { ...template, id: `template-${nextTemplate++}` }
        templates.set(booting, made)
        return made
      },
      async abandonTemplate() {},
      measureTemplates: async () =>
        [...templates.values()].map(({ id }) => ({
          id,
          mib: 100,
          imageHash: "image",
          lastUsedMs: host.templatesUsedMs,
        })),
      async removeTemplate(id) {
        for (const [spec, one] of templates) if (one.id === id) templates.delete(spec)
        return true
      },
      async removeLeftovers() {},
      prepareSockets: async () => ({ agent: 0, qmp: 0 }),
      async clone({ directory }) {
        fail("clone")
        return run(newMachine(directory))
      },
      async restore({ directory }) {
        fail("restore")
        return run(newMachine(directory))
      },
      async boot({ directory }) {
        fail("boot")
        return run(newMachine(directory))
      },
      async checkDisk() {
        if (host.diskDamage !== undefined)
          throw new AppError("unavailable", host.diskDamage, { retryable: false })
        return { missingMib: 0 }
      },
      checkSnapshot: async (directory) => {
        if (host.misfit !== undefined) return { fits: false, reason: host.misfit }
        return host.memories.has(directory)
          ? { fits: true, memoryMib: 20 }
          : { fits: false, reason: "there is no memory snapshot" }
      },
      async pause({ process }) {
        fail("pause")
        host.pauses++
        host.halts.set(process.pid, "paused")
      },
      async resume({ process }) {
        host.halts.delete(process.pid)
      },
      haltOf: async ({ process }) => host.halts.get(process.pid) ?? "none",
      async saveSnapshot(machine, options) {
        fail("save")
        host.memories.add(options?.directory ?? machine.directory)
      },
      async removeSnapshot(directory) {
        host.memories.delete(directory)
      },
      openSharedMemory: () => {
        throw new AppError("unavailable", "a machine that is played shares no memory")
      },
      isRunning: ({ process }) => host.running.has(process.pid),
      endsWithin: async ({ process }) => !host.running.has(process.pid),
      endOf: async () => host.end,
      lastEndIn: async () => host.end,
      ranOutOfMemory: async () => host.isOutOfMemory,
      findIn(directory) {
        const pid = [...host.running].find(([, machine]) => machine.directory === directory)?.[0]
        return pid === undefined
          ? undefined
          : { process: { pid, startTicks: 1, bootId: "fake" }, directory, memoryBase: "template" }
      },
      cpuMs: () => host.cpuMsNow,
      trafficBytes: () => host.trafficNow,
      availableMemoryMib: () => host.availableMemoryMibNow,
      setUrgency() {},
      async kill({ process, directory }) {
        host.running.delete(process.pid)
        guestsByDirectory.get(directory)?.close()
      },
      async killIn(directory) {
        for (const [pid, running] of host.running) {
          if (running.directory !== directory) continue
          host.running.delete(pid)
          guestsByDirectory.get(directory)?.close()
        }
      },
      slotsInUse: () => host.slotsInUseNow,
      async growDisk() {
        fail("grow")
      },
      diagnose: async () => ({ qemu: "", console: "" }),
      agentSocket: (directory) => `${directory}/agent.sock`,
    },
    disks: {
      async createBase() {},
      async createSandbox({ id }) {
        fail("disk")
        host.directories.add(id)
        return { directory: `/fake/${id}`, overlayPath: `/fake/${id}/disk` }
      },
      directoryOf: (id) => `/fake/${id}`,
      overlayOf: (id) => `/fake/${id}/disk`,
      async removeSandbox(id) {
        host.directories.delete(id)
        host.memories.delete(`/fake/${id}`)
      },
      usedMib: async (id) => Math.ceil(host.overlaysMib.get(id) ?? 1),
      countedMib: async (id) => Math.ceil(host.overlaysMib.get(id) ?? 1),
      overlayMib: async (id) => host.overlaysMib.get(id) ?? 1,
      stampOf: async () => "",
      listSandboxes: async () => [...host.directories],
      freeMib: async () => host.freeMibNow,
    },
    backups: {
      begin: async (directory) => ({
        databasePath: `${directory}/bhatti.db`,
        isBeside: true,
        isFull: false,
        async addSandbox() {
          host.freeMibNow -= host.backupPartMib
        },
        async addSnapshot() {
          host.freeMibNow -= host.backupPartMib
        },
        commonMib: async () => 1,
        writing: (work) => work(),
        addCommon: async () => undefined,
        remove: async () => undefined,
        finish: async () => ({ bytes: 0 }),
        abandon: async () => undefined,
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
        fail("draft")
        host.drafts.add(id)
        return `/draft/${id}`
      },
      async copyAhead() {
        fail("copy ahead")
      },
      async capture({ id, storedMemory }) {
        fail("capture")
        if (storedMemory) host.memories.add(`/draft/${id}`)
      },
      async publish(id) {
        fail("publish")
        host.drafts.delete(id)
        host.kept.set(id, { hasMemory: host.memories.delete(`/draft/${id}`) })
        return { bytes: 1024 * 1024 }
      },
      async abandon(id) {
        host.drafts.delete(id)
        host.memories.delete(`/draft/${id}`)
      },
      async place({ id, sandboxId }) {
        fail("place")
        const hasMemory = host.kept.get(id)?.hasMemory ?? false
        return placeIn(sandboxId, hasMemory)
      },
      async placeDraft({ id, sandboxId }) {
        fail("place")
        return placeIn(sandboxId, host.memories.has(`/draft/${id}`))
      },
      async remove(id) {
        host.kept.delete(id)
        await host.snapshots.abandon(id)
      },
      list: async () => [...host.kept.keys()],
      async removeUnfinished() {
        for (const id of host.drafts) await host.snapshots.abandon(id)
      },
    },
    images: {
      async list() {
        if (host.imagesMissing) return []
        return [
          {
            name: limits.imageDefault,
            hash: "image",
            diskMib: 8192,
            usedMib: 700,
            kernelVersion: "6.1.0",
            installedAt: "2026-01-01T00:00:00.000Z",
          },
        ]
      },
      async readImage(name) {
        if (name !== limits.imageDefault || host.imagesMissing) {
          throw new AppError("not_found", `no image named "${name}"`, { hint: "sudo bhatti init" })
        }
        return { name, hash: "image", file: "/image", diskMib: 8192 }
      },
      readKernel: async () => kernel,
      readKernelFor: async () => kernel,
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
    guests: {
      async open({ socketPath }) {
        const directory = socketPath.replace(/\/agent\.sock$/, "")
        const guest = new FakeGuest(host, directory)
        guestsByDirectory.set(directory, guest)
        return guest
      },
    },
  }
  return host
}

class FakeGuest implements Guest {
  readonly #host: FakeHost
  readonly #closed = Promise.withResolvers<{ reason: string }>()
  readonly closed = this.#closed.promise
  readonly #sessions: FakeSession[] = []
  readonly #files = new Map<string, Uint8Array>()
  readonly #owners = new Map<string, number>()
  #env: Record<string, string> = {}

  readonly #directory: string
  #onEnded: (ended: SessionNotice) => void = () => undefined

  constructor(host: FakeHost, directory: string) {
    this.#host = host
    this.#directory = directory
    host.endInit = (exitCode, signal = null) =>
      this.#onEnded({ session: "s1", name: "init", exitCode, signal })
  }

  async waitReady(): Promise<unknown> {
    return { generation: 1 }
  }

  async ping() {
    return { personalised: true, rootReadOnly: this.#host.isRootReadOnly, repair: this.#host.repair }
  }

  async personalise(identity: GuestIdentity): Promise<unknown> {
    if (this.#host.failAt === "personalise") throw new AppError("unavailable", "injected at personalise")
    this.#env = identity.env
    this.#host.identities.push(identity)
    return {}
  }

  get activity(): { openStreams: number; lastAtMs: number } {
    return { openStreams: this.#host.openStreams, lastAtMs: 0 }
  }

  async refresh(): Promise<unknown> {
    return {}
  }

  async quiesce(): Promise<unknown> {
    return {}
  }

  async shutdown(): Promise<unknown> {
    if (this.#host.failAt === "shutdown") throw new AppError("unavailable", "injected at shutdown")
    for (const [pid, { directory }] of this.#host.running)
      if (directory === this.#directory) this.#host.running.delete(pid)
    return {}
  }

  watch(onEnded: (ended: SessionNotice) => void): void {
    this.#onEnded = onEnded
  }

  readSession(): GuestStream & { result: Promise<unknown> } {
    return transferOf([Buffer.from("what it showed\n")], Promise.resolve({ bytes: 15, entries: 1 }))
  }

  async nextTimer(): Promise<{ dueMs: number | null }> {
    const { nextTimerMs } = this.#host
    this.#host.cpuMsNow += this.#host.nextTimerCpuMs
    if (nextTimerMs === undefined)
      throw new AppError("unavailable", 'this agent has no operation "next_timer"')
    return { dueMs: nextTimerMs }
  }

  async trim(): Promise<unknown> {
    if (this.#host.failAt === "trim") throw new AppError("unavailable", 'this agent has no operation "trim"')
    this.#host.trims++
    return {}
  }

  exec(command: GuestCommand): GuestProcess {
    const { ongoing } = this.#host
    const process = new FakeProcess({ ...command, env: { ...this.#env, ...command.env } })
    ongoing.commands++
    void process.result.catch(() => undefined).finally(() => ongoing.commands--)
    return process
  }

  openSession(start: SessionStart): GuestSession {
    const session = new FakeSession(`s${this.#sessions.length + 1}`, start)
    this.#sessions.push(session)
    return session
  }

  async startSession(start: SessionStart): Promise<{ session: string }> {
    const session = this.openSession(start) as FakeSession
    session.close()
    return { session: session.id }
  }

  attachSession(options: { session?: string }): GuestSession {
    const found = this.#sessions.find(({ id, name }) => id === options.session || name === options.session)
    if (!found) throw new AppError("not_found", `no session "${options.session}"`)
    found.attach()
    return found
  }

  async sessions(): Promise<SessionRecord[]> {
    return this.#sessions.map((session) => session.record())
  }

  async killSession(id: string): Promise<unknown> {
    const found = this.#sessions.find((session) => session.id === id)
    if (!found) throw new AppError("not_found", `no session "${id}"`)
    found.end(137)
    return {}
  }

  readFile({ path }: { path: string }): GuestDownload {
    const bytes = this.#files.get(path)
    if (!bytes) {
      const error = new AppError("not_found", `no file ${path}`)
      return { ...transferOf([], Promise.reject(error)), file: quiet(Promise.reject(error)) } as GuestDownload
    }
    const { ongoing } = this.#host
    ongoing.downloads++
    return {
      ...transferOf([bytes], Promise.resolve({ bytes: bytes.length, entries: 1 })),
      ...(this.#host.download && { output: this.#host.download() }),
      file: this.statFile(path),
      close: () => ongoing.downloads--,
    }
  }

  writeFile(options: { path: string; size?: number; owner?: { uid: number } }): GuestTransfer {
    if (options.owner) this.#owners.set(options.path, options.owner.uid)
    const chunks: Uint8Array[] = []
    const result = Promise.withResolvers<{ bytes: number; entries: number }>()
    const { ongoing } = this.#host
    ongoing.uploads++
    void quiet(result.promise)
      .catch(() => undefined)
      .finally(() => ongoing.uploads--)
    return {
      output: (async function* () {})(),
      result: result.promise,
      write: async (bytes) => void chunks.push(bytes.slice()),
      endInput: () => {
        const bytes = Buffer.concat(chunks)
        if (options.size !== undefined && options.size !== bytes.length) {
          return result.reject(new AppError("invalid", "another size than was said"))
        }
        this.#files.set(options.path, bytes)
        result.resolve({ bytes: bytes.length, entries: 1 })
      },
      close: () => result.reject(new AppError("unavailable", "the upload was given up")),
    }
  }

  async findOwner(owner: string): Promise<{ uid: number; gid: number }> {
    if (owner !== "root") throw new AppError("invalid", `no user "${owner}"`)
    return { uid: 0, gid: 0 }
  }

  async listFiles(path: string): Promise<{ files: GuestFile[]; isTruncated: boolean }> {
    const names = [...this.#files.keys()].filter((name) => name.startsWith(`${path}/`))
    const files = await Promise.all(names.slice(0, this.#host.listedMax).map((name) => this.statFile(name)))
    return { files, isTruncated: names.length > files.length }
  }

  async statFile(path: string): Promise<GuestFile> {
    const bytes = this.#files.get(path)
    if (!bytes) throw new AppError("not_found", `no file ${path}`)
    return {
      name: path.split("/").at(-1) ?? path,
      size: bytes.length,
      mode: "0644",
      type: "file",
      owner: this.#owners.get(path) === 0 ? "root" : "lohar",
      group: "lohar",
      modifiedUnixMs: 0,
      target: null,
    }
  }

  async removeFile({ path }: { path: string }): Promise<unknown> {
    if (!this.#files.delete(path)) throw new AppError("not_found", `no file ${path}`)
    return {}
  }

  async makeDirectory({ path, owner }: { path: string; owner?: { uid: number } }): Promise<unknown> {
    if (owner) this.#owners.set(path, owner.uid)
    return {}
  }

  async moveFile({ from, to }: { from: string; to: string }): Promise<unknown> {
    const bytes = this.#files.get(from)
    if (!bytes) throw new AppError("not_found", `no file ${from}`)
    this.#files.delete(from)
    this.#files.set(to, bytes)
    return {}
  }

  readArchive(): GuestTransfer {
    return transferOf([Buffer.from("tar")], Promise.resolve({ bytes: 3, entries: 1 }))
  }

  writeArchive(): GuestTransfer {
    return transferOf([], Promise.resolve({ bytes: 0, entries: 0 }))
  }

  dial(port: number): GuestConnection {
    return this.#host.dial(port)
  }

  share(): void {}

  async ports(): Promise<{ port: number; address: string }[]> {
    return [{ port: 3000, address: "127.0.0.1" }]
  }

  close(): void {
    this.#closed.resolve({ reason: "closed" })
  }
}

function quiet<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => undefined)
  return promise
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

/** A session that echoes what is typed into it, and ends when `exit` is. */
class FakeSession implements GuestSession {
  readonly id: string
  readonly name: string | null
  readonly #argv: string[]
  #attached = true
  #exitCode: number | null = null
  #shown = ""
  #end = Promise.withResolvers<SessionEnd>()
  #wake: () => void = () => undefined
  #pending: Uint8Array[] = []

  constructor(id: string, start: SessionStart) {
    this.id = id
    this.name = start.name ?? null
    this.#argv = start.argv ?? ["bash", "-l"]
  }

  get opened(): Promise<{ id: string; name: string | null }> {
    return Promise.resolve({ id: this.id, name: this.name })
  }

  get result(): Promise<SessionEnd> {
    return this.#end.promise
  }

  get output(): AsyncIterable<Uint8Array> {
    return this.#show()
  }

  async *#show(): AsyncGenerator<Uint8Array> {
    const end = this.#end.promise
    let isOver = false
    void end.then(() => {
      isOver = true
      this.#wake()
    })
    for (;;) {
      for (const bytes of this.#pending.splice(0)) yield bytes
      if (isOver) return
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
  }

  attach(): void {
    if (this.#attached) this.#end.resolve({ state: "taken_over" })
    this.#end = Promise.withResolvers<SessionEnd>()
    this.#attached = true
    this.#pending = [Buffer.from(this.#shown)]
    if (this.#exitCode !== null) this.#end.resolve({ state: "ended", exitCode: this.#exitCode, signal: null })
  }

  async write(bytes: Uint8Array): Promise<void> {
    this.#shown += Buffer.from(bytes).toString()
    this.#pending.push(bytes.slice())
    this.#wake()
    if (this.#shown.endsWith("exit\n")) this.end(0)
  }

  end(exitCode: number): void {
    this.#exitCode = exitCode
    this.#end.resolve({ state: "ended", exitCode, signal: null })
  }

  endInput(): void {}
  resize(): void {}
  signal(): void {}

  close(): void {
    this.#attached = false
    this.#end.resolve({ state: "detached" })
  }

  record(): SessionRecord {
    return {
      id: this.id,
      name: this.name,
      argv: this.#argv,
      pid: 1,
      state: this.#exitCode === null ? "running" : "ended",
      exitCode: this.#exitCode,
      signal: null,
      attached: this.#attached,
      createdUnixMs: 0,
    }
  }
}

/** Programs: `echo`, `cat`, `env`, `exit N`, `flood BYTES`, `sleep` (until killed), `warn` (stderr), `sh` and `true` (nothing). */
class FakeProcess implements GuestProcess {
  readonly started = Promise.resolve({ pid: 42 })
  readonly result: Promise<{ exitCode: number; signal: string | null }>
  readonly output: AsyncIterable<OutputChunk>
  readonly #result = Promise.withResolvers<{ exitCode: number; signal: string | null }>()
  readonly #input: Uint8Array[] = []
  readonly #inputEnded = Promise.withResolvers<void>()

  constructor(command: GuestCommand) {
    this.result = this.#result.promise
    this.result.catch(() => undefined)
    this.output = this.#run(command)
  }

  async *#run(command: GuestCommand): AsyncGenerator<OutputChunk> {
    const [program, ...args] = command.argv
    const text = (words: string, channel: "stdout" | "stderr" = "stdout") => ({
      channel,
      bytes: Buffer.from(words),
    })
    switch (program) {
      case "echo":
        yield text(`${args.join(" ")}\n`)
        break
      case "warn":
        yield text("out\n")
        yield text("err\n", "stderr")
        break
      case "env":
        for (const [key, value] of Object.entries(command.env ?? {})) yield text(`${key}=${value}\n`)
        break
      case "cat":
        if (command.stdin) await this.#inputEnded.promise
        for (const bytes of this.#input) yield { channel: "stdout", bytes }
        break
      case "flood":
        for (let left = Number(args[0]); left > 0; left -= 32_768) {
          yield { channel: "stdout", bytes: new Uint8Array(Math.min(left, 32_768)).fill(97) }
        }
        break
      case "sleep": {
        const ended = await this.#result.promise
        if (ended) return
        break
      }
      case "exit":
        return this.#result.resolve({ exitCode: Number(args[0]), signal: null })
      case "sh":
      case "true":
        break
      default:
        return this.#result.reject(new AppError("not_found", `no program named "${program}" in the sandbox`))
    }
    this.#result.resolve({ exitCode: 0, signal: null })
  }

  async write(bytes: Uint8Array): Promise<void> {
    this.#input.push(bytes.slice())
  }

  endInput(): void {
    this.#inputEnded.resolve()
  }

  signal(name: string): void {
    this.#result.resolve({ exitCode: name === "INT" ? 130 : 143, signal: name })
  }

  resize(): void {}

  kill(): void {
    this.#result.resolve({ exitCode: 137, signal: "KILL" })
  }
}
