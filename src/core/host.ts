/**
 * What the product needs of the host it runs on: the ports that the real adapters fit by shape and the simulation fakes.
 * Methods that take long take a deadline; a failure is an `AppError`.
 */

import type { NetPolicy } from "../contract/network.ts"

export type Image = { name: string; hash: string; file: string; diskMib: number }
export type Kernel = { hash: string; vmlinux: string; initramfs: string; version: string }
/** `authority` is the digest of certificates that the guest is made to trust. */
export type TemplateSpec = {
  image: Image
  kernel: Kernel
  cpus: number
  memoryMib: number
  authority?: string
}
export type Template = { id: string; diskMib: number; blankOverlayPath: string }
export type TemplateDraft = { directory: string; diskPath: string; blankOverlayPath: string }
export type ProcessIdentity = { pid: number; startTicks: number; bootId: string }
export type Machine = { process: ProcessIdentity; directory: string; memoryBase: "template" | "empty" }
export type Sockets = { agent: number; qmp: number }
export type Place = {
  template: Template
  name: string
  directory: string
  overlayPath: string
  sockets: Sockets
  slot: number
  tapName: string | undefined
  diskMib: number
}

/**
 * How a guest ended its machine. agent: the guest's first process failed. `console`: the last that its console showed; whatever the
 * guest wrote there.
 */
export type MachineEnd = { how: "poweroff" | "reboot" | "panic" | "agent"; console: string }

export interface Machines {
  /** Identifies the host's present boot. */
  readonly bootId: string
  findTemplate(spec: TemplateSpec): Promise<Template | undefined>
  getTemplate(id: string): Promise<Template>
  loadTemplate(template: Template): Promise<void>
  beginTemplate(spec: TemplateSpec): Promise<TemplateDraft>
  bootTemplate(draft: TemplateDraft, spec: TemplateSpec): Promise<Machine>
  publishTemplate(draft: TemplateDraft, machine: Machine): Promise<Template>
  abandonTemplate(draft: TemplateDraft): Promise<void>
  /** The finished ones: space they take, the image they lie on, and when each was last asked for, on the clock of `Date.now()`. */
  measureTemplates(): Promise<{ id: string; mib: number; imageHash: string; lastUsedMs: number }[]>
  /** False: it was asked for within that time, and stays. */
  removeTemplate(id: string, options: { unusedForMs: number }): Promise<boolean>
  removeLeftovers(): Promise<void>

  prepareSockets(directory: string): Promise<Sockets>
  clone(place: Place): Promise<Machine>
  restore(place: Place): Promise<Machine>
  boot(place: Place, kernel: Kernel & { arguments?: string[] }): Promise<Machine>
  /** Throws if a sandbox's disk is damaged, as far as that is seen. `missingMib`: a host that went down had not written them out. */
  checkDisk(directory: string): Promise<{ missingMib: number }>
  /** Throws if the disk that the memory belongs to is damaged. */
  checkSnapshot(
    directory: string,
    template: Template,
  ): Promise<{ fits: true; memoryMib: number } | { fits: false; reason: string }>
  pause(machine: Machine): Promise<void>
  resume(machine: Machine): Promise<void>
  /** Returns whether its processors stand still; `disk_full`: a write of its guest waits for space on the host. */
  haltOf(machine: Machine): Promise<"none" | "paused" | "disk_full">
  /** Into the machine's own directory, or as a copy into another, which is not synced and can be given up. */
  saveSnapshot(machine: Machine, options?: { directory: string; signal: AbortSignal }): Promise<void>
  removeSnapshot(directory: string): Promise<void>

  /** Memory that a running machine shares with this host, as a descriptor that the caller closes. */
  openSharedMemory(machine: Machine): number
  isRunning(machine: Machine): boolean
  /** Whether it ends by itself that soon. */
  endsWithin(machine: Machine, options: { deadlineMs: number }): Promise<boolean>
  /** How its guest has ended it; undefined if it did not, or nobody heard. */
  endOf(machine: Machine): Promise<MachineEnd | undefined>
  /** The end of the machine that a sandbox had last, if its guest ended it. */
  lastEndIn(directory: string): Promise<MachineEnd | undefined>
  /** Of one that has ended and was not killed here: whether the host had no memory for it. */
  ranOutOfMemory(machine: Machine): Promise<boolean>
  findIn(directory: string): Machine | undefined
  cpuMs(machine: Machine): number
  /** Bytes that the machine has read and written so far: of its disk, and through its TAP device. */
  trafficBytes(machine: Machine, tapName: string | undefined): { disk: number; network: number }
  /** What machines may still take before the host's kernel has to end something. */
  availableMemoryMib(): number
  /** Whether it gives way to all others on the host. */
  setUrgency(machine: Machine, urgency: "normal" | "background"): void
  kill(machine: Machine): Promise<void>
  killIn(directory: string): Promise<void>
  /** Slots that no new sandbox may have: the host's processes use what belongs to them. */
  slotsInUse(): number[]
  growDisk(machine: Machine, diskMib: number): Promise<void>
  diagnose(machine: Machine): Promise<{ qemu: string; console: string }>
  agentSocket(directory: string): string
}

export interface Disks {
  createBase(options: { path: string; diskMib: number; backing: "raw" | "qcow2" }): Promise<void>
  /** Makes the sandbox's directory with its disk in it. */
  createSandbox(options: {
    id: string
    blankOverlayPath: string
  }): Promise<{ directory: string; overlayPath: string }>
  directoryOf(id: string): string
  overlayOf(id: string): string
  removeSandbox(id: string): Promise<void>
  /** Differs after anything was written to the disk. */
  stampOf(id: string): Promise<string>
  listSandboxes(): Promise<string[]>
  freeMib(): Promise<number>
  /** Space that a sandbox's disk, and what else its QEMU writes by itself, takes now, to the byte almost; 0: there is none. */
  overlayMib(id: string): Promise<number>
  /** Space that a sandbox's directory takes now. */
  usedMib(id: string): Promise<number>
  /** The same without the memory that is saved while it is stopped. */
  countedMib(id: string): Promise<number>
}

/**
 * Copies of sandboxes: memory, device state and disk of one instant, each in a directory of its own, laid out as a
 * sandbox's. A draft is what this run of the daemon is making; a finished one is only what its manifest proves.
 */
export interface Snapshots {
  /** The draft's directory, empty; `saveSnapshot` may write the memory into it. */
  begin(id: string): Promise<string>
  /** Copies of a sandbox's disk what there is now, while it goes on, so that `capture` has less to do. */
  copyAhead(options: { id: string; sandboxId: string; signal: AbortSignal }): Promise<void>
  /** Adds a sandbox's disk, which must stand still, and the memory that a stopped one has on disk. */
  capture(options: {
    id: string
    sandboxId: string
    storedMemory: boolean
    signal: AbortSignal
  }): Promise<void>
  /** Makes the draft a finished one. */
  publish(id: string): Promise<{ bytes: number }>
  abandon(id: string): Promise<void>
  /** Gives a sandbox that has no directory yet a copy of a finished one; throws if that is not whole. */
  place(options: { id: string; sandboxId: string; signal: AbortSignal }): Promise<{ hasMemory: boolean }>
  /** The same of a draft; the last sandbox gets the draft's own files. */
  placeDraft(options: {
    id: string
    sandboxId: string
    isLast: boolean
    signal: AbortSignal
  }): Promise<{ hasMemory: boolean }>
  remove(id: string): Promise<void>
  /** Ids of the finished ones. */
  list(): Promise<string[]>
  removeUnfinished(): Promise<void>
}

/** Records beside the disks, from which a lost database is made again, and directories that the database does not know. */
export interface KeptRows {
  /** Beside the disk. False: there is no such directory any more. */
  write(kind: "sandbox" | "snapshot", id: string, text: string): Promise<boolean>
  /** Moves a directory out of the way, with the reason; gives where it is then. */
  setAside(kind: "sandbox" | "snapshot", id: string, reason: string): Promise<string>
  /** Templates under what was set aside and under directories of other ids than these; undefined: of one of them that cannot be told. */
  templatesUnderUnknown(known: ReadonlySet<string>): string[] | undefined
}

/** `usedMib` is what it takes on the host, `installedAt` an ISO time. */
export type InstalledImage = {
  name: string
  hash: string
  diskMib: number
  usedMib: number
  kernelVersion: string
  installedAt: string
}

/** A backup of the installation that is being made. */
export interface BackupDraft {
  /** Where its database belongs. */
  readonly databasePath: string
  /** It takes the space of the data directory's file system. */
  readonly isBeside: boolean
  /** Something found no space there. */
  readonly isFull: boolean
  /** The draft of a copy of that sandbox. */
  addSandbox(id: string, draftDirectory: string): Promise<void>
  addSnapshot(id: string): Promise<void>
  commonMib(): Promise<number>
  /** For work that writes there: where it finds no space, its error names the backup's disk. */
  writing<Result>(work: () => Promise<Result>): Promise<Result>
  /** All that is neither in the database nor one sandbox's. */
  addCommon(): Promise<void>
  remove(kind: "sandbox" | "snapshot", id: string): Promise<void>
  /** Only now it is one. */
  finish(about: { version: string; mark: string }): Promise<{ bytes: number }>
  abandon(): Promise<void>
}

export interface Backups {
  /** Refuses a directory with something in it. */
  begin(directory: string): Promise<BackupDraft>
}

export interface Images {
  /** The current one of every name, by name. */
  list(): Promise<InstalledImage[]>
  readImage(name: string): Promise<Image>
  readKernel(): Promise<Kernel>
  /** Throws if an image is missing or known to be damaged. `isReadThrough`: waits until it is known to be whole. */
  checkImage(image: { name: string; hash: string }, options?: { isReadThrough: boolean }): Promise<void>
  /** The one whose modules an image holds. */
  readKernelFor(image: { name: string; hash: string }): Promise<Kernel>
  /** Kernel for a boot that repairs the root filesystem. */
  repairKernel(kernel: Kernel): Promise<Kernel & { arguments: string[] } & Disposable>
  /** Images that nothing lies on and that are not used next, and their kernels; gives the paths of what went. */
  removeUnused(neededImages: ReadonlySet<string>): Promise<string[]>
}

export type GuestIdentity = {
  hostname: string
  machineId: string
  env: Record<string, string>
  network: null | {
    mac: string
    address: string
    prefix: number
    gateway: string
    dns: string[]
    mtu: number
  }
  growDisk: boolean
}

export type Terminal = { rows: number; cols: number; term?: string }

export type GuestCommand = {
  argv: string[]
  env?: Record<string, string>
  cwd?: string
  user?: string
  stdin?: boolean
  tty?: Terminal
}

export type OutputChunk = { channel: "stdout" | "stderr"; bytes: Uint8Array }

export interface GuestProcess {
  readonly started: Promise<{ pid: number }>
  readonly output: AsyncIterable<OutputChunk>
  readonly result: Promise<{ exitCode: number; signal: string | null }>
  write(bytes: Uint8Array): Promise<void>
  endInput(): void
  signal(name: string): void
  resize(size: { rows: number; cols: number }): void
  kill(): void
}

/** How a stream to a session, a file or a connection in the guest looks from here. */
export interface GuestStream {
  readonly output: AsyncIterable<Uint8Array>
  write(bytes: Uint8Array): Promise<void>
  endInput(): void
  /** Gives up what is going on: detaches from a session, drops an upload, resets a connection. */
  close(): void
}

export type SessionRecord = {
  id: string
  name: string | null
  argv: string[]
  pid: number
  state: "running" | "ended"
  exitCode: number | null
  signal: string | null
  attached: boolean
  createdUnixMs: number
}

export type SessionEnd =
  | { state: "ended"; exitCode: number; signal: string | null }
  | { state: "detached" }
  | { state: "taken_over" }

/** A named session that has ended. */
export type SessionNotice = { session: string; name: string; exitCode: number; signal: string | null }

export interface GuestSession extends GuestStream {
  readonly opened: Promise<{ id: string; name: string | null }>
  readonly result: Promise<SessionEnd>
  resize(size: { rows: number; cols: number }): void
  signal(name: string): void
}

export type GuestFile = {
  name: string
  size: number
  mode: string
  type: "file" | "directory" | "symlink" | "other"
  owner: string
  group: string
  modifiedUnixMs: number
  target: string | null
}

export interface GuestDownload extends GuestStream {
  readonly file: Promise<GuestFile>
  readonly result: Promise<{ bytes: number }>
}

export interface GuestTransfer extends GuestStream {
  readonly result: Promise<{ bytes: number; entries: number }>
}

export interface GuestConnection extends GuestStream {
  readonly connected: Promise<void>
  readonly result: Promise<void>
}

export type SessionStart = Omit<GuestCommand, "argv" | "stdin" | "tty"> & {
  argv?: string[]
  name?: string
  tty: Terminal
}

/** Numbers of a user and a group of the guest. */
export type GuestOwner = { uid: number; gid: number }

export interface Guest {
  readonly closed: Promise<{ reason: string }>
  /**
   * Streams that are open now, and when the last one was opened or closed, on the clock of `performance.now()`. `nextTimer` is
   * none of them.
   */
  readonly activity: { openStreams: number; lastAtMs: number }
  waitReady(options: { deadlineMs: number; resync?: boolean }): Promise<unknown>
  ping(options: { deadlineMs: number }): Promise<{
    personalised: boolean
    /** Its kernel takes no more writes to its root. */
    rootReadOnly: boolean
    /** If it was booted for that. */
    repair: { exitCode: number; output: string } | undefined
  }>
  personalise(identity: GuestIdentity, options: { deadlineMs: number }): Promise<unknown>
  refresh(options: { deadlineMs: number }): Promise<unknown>
  quiesce(options: { deadlineMs: number }): Promise<unknown>
  /** How long until the first program inside wants to go on by itself; null: none does. An older agent refuses to say. */
  nextTimer(options: { deadlineMs: number }): Promise<{ dueMs: number | null }>
  /** Writes the filesystems out and gives back what was deleted, as far as that is done in `budgetMs`. `unavailable`: it cannot. */
  trim(options: { budgetMs: number; deadlineMs: number }): Promise<unknown>
  exec(command: GuestCommand): GuestProcess

  openSession(start: SessionStart): GuestSession
  /** Starts a session that nobody is attached to. */
  startSession(start: SessionStart, options: { deadlineMs: number }): Promise<{ session: string }>
  attachSession(options: { session?: string; tty: Terminal }): GuestSession
  sessions(options: { deadlineMs: number }): Promise<SessionRecord[]>
  killSession(session: string, signal: string, options: { deadlineMs: number }): Promise<unknown>
  /** Reads the kept output of a session. An older agent refuses. */
  readSession(session: string): GuestStream & { readonly result: Promise<unknown> }
  /** Tells of named sessions that end, each once. */
  watch(onEnded: (ended: SessionNotice) => void): void
  /** Ends everything inside in good order, and then the machine. */
  shutdown(options: { deadlineMs: number }): Promise<unknown>

  readFile(options: { path: string }): GuestDownload
  writeFile(options: {
    path: string
    mode?: string
    size?: number
    parents?: boolean
    owner?: GuestOwner
  }): GuestTransfer
  /** Looks up "user" or "user:group" in the guest. */
  findOwner(owner: string, deadline: { deadlineMs: number }): Promise<GuestOwner>
  /** `isTruncated`: the directory has more. */
  listFiles(
    path: string,
    options: { deadlineMs: number },
  ): Promise<{ files: GuestFile[]; isTruncated: boolean }>
  statFile(path: string, options: { deadlineMs: number }): Promise<GuestFile>
  removeFile(
    options: { path: string; recursive: boolean },
    deadline: { deadlineMs: number },
  ): Promise<unknown>
  makeDirectory(
    options: { path: string; parents: boolean; mode: string; owner?: GuestOwner },
    deadline: { deadlineMs: number },
  ): Promise<unknown>
  moveFile(options: { from: string; to: string }, deadline: { deadlineMs: number }): Promise<unknown>
  readArchive(options: { path: string }): GuestTransfer
  writeArchive(options: { path: string; owner?: GuestOwner }): GuestTransfer

  /** Memory that the guest's machine shares with this host, for files; opened when it is needed. */
  share(open: () => number | undefined): void
  dial(port: number): GuestConnection
  ports(options: { deadlineMs: number }): Promise<{ port: number; address: string }[]>

  close(): void
}

export interface Guests {
  open(options: { socketPath: string }): Promise<Guest>
}

/** A sandbox as the network knows it. `owner` are all those that may reach each other. */
export type Attachment = { id: string; slot: number; owner: string; hostname: string; policy: NetPolicy }

/**
 * The network of sandboxes. A machine's TAP device carries nothing before `linkUp`, and nothing but what its attachment
 * permits after it; without an attachment that is nothing.
 */
export interface Network {
  tapOf(id: string): string
  /** Those of these networks in which a policy can open nothing, because all of it is internal. */
  closedAmong(cidrs: string[]): string[]
  identityOf(sandbox: { id: string; slot: number }): NonNullable<GuestIdentity["network"]>
  linkUp(sandbox: { id: string; slot: number }): Promise<void>
  /** Again for one that is attached: changes its policy or name. */
  attach(attachment: Attachment): Promise<void>
  detach(id: string): Promise<void>
  /** Exactly these are attached from now on, whatever was before. */
  resync(attachments: Attachment[]): Promise<void>
  /** Repairs what others break, until the signal says stop. */
  guard(signal: AbortSignal, onRepair: (what: string, error?: unknown) => void): Promise<void>
  close(): Promise<void>
}

export type Host = {
  machines: Machines
  disks: Disks
  snapshots: Snapshots
  keptRows: KeptRows
  backups: Backups
  images: Images
  guests: Guests
  /** Null: machines have QEMU's own network, which reaches nothing. */
  network: Network | null
}
