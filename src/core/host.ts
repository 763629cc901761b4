/**
 * The ports to the host: the real adapters fit them by shape, and the simulation fakes them. Slow methods take a
 * deadline; a failure is an `AppError`.
 */

import type {
  Exited,
  FileList,
  GuestCommand,
  GuestFile,
  GuestIdentity,
  GuestNetwork,
  GuestOwner,
  ListeningPort,
  OutputChunk,
  Pong,
  SessionEnd,
  SessionNotice,
  SessionRecord,
  SessionStart,
  Terminal,
  TerminalSize,
} from "@bhatti/contract/guest"
import type { NetPolicy } from "@bhatti/contract/network"
import type { ProcessIdentity } from "../lib/process-identity.ts"

export type Image = { name: string; hash: string; file: string; diskMib: number }
export type Kernel = { hash: string; vmlinux: string; initramfs: string; version: string }
/** `authority` is the digest of the certificates that the guest is made to trust. */
export type TemplateSpec = {
  image: Image
  kernel: Kernel
  cpus: number
  memoryMib: number
  authority?: string
}
export type Template = { id: string; diskMib: number }
/** A machine has the id of its sandbox. */
export type Machine = { id: string; process: ProcessIdentity; memoryBase: "template" | "empty" }
export type Started = { machine: Machine; guest: Guest }
/** A sandbox whose disk exists, for the start of its machine. */
export type Place = { id: string; template: Template; slot: number; diskMib: number }
/** `memory`: as `saveSnapshot` left it; `disk`: it boots. */
export type MachineFrom =
  | { kind: "template" | "memory" }
  | { kind: "disk"; kernel: Kernel & { arguments?: string[] } }

/**
 * How a guest ended its machine. `agent`: the guest's first process failed. `console`: the last output of its console,
 * which the guest controls.
 */
export type MachineEnd = { how: "poweroff" | "reboot" | "panic" | "agent"; console: string }

/** `out_of_memory`: the host's kernel ended it. `host_restart`: it ran before the host's current boot. */
export type Fate = MachineEnd | { how: "running" | "out_of_memory" | "host_restart" | "killed" }

export interface Machines {
  /**
   * Connects to the guest before its machine runs, so that no message is lost. The caller ends both; a start that fails
   * leaves neither.
   */
  start(place: Place, from: MachineFrom): Promise<Started>
  /** Connects to the guest of a machine that runs. */
  connect(machine: Machine): Promise<Guest>
  /** Throws if damage to a sandbox's disk is detected. `missingMib`: data that the host lost when it went down. */
  checkDisk(id: string): Promise<{ missingMib: number }>
  /** Throws if the disk that belongs to the saved memory is damaged. */
  checkSnapshot(
    id: string,
    template: Template,
  ): Promise<{ fits: true; memoryMib: number } | { fits: false; reason: string }>
  pause(machine: Machine): Promise<void>
  resume(machine: Machine): Promise<void>
  /** Returns whether the processors stand still; `disk_full`: a guest's write waits for space on the host. */
  haltOf(machine: Machine): Promise<"none" | "paused" | "disk_full">
  /** Saves beside the machine's disk, or into the draft of a copy, which is not synced and can be aborted. */
  saveSnapshot(machine: Machine, options?: { draft: string; signal: AbortSignal }): Promise<void>
  removeSnapshot(id: string): Promise<void>

  isRunning(machine: Machine): boolean
  /** Waits until the machine ends by itself or the deadline has passed. Call it before `kill`, which tidies up. */
  fateOf(machine: Machine, options: { deadlineMs: number }): Promise<Fate>
  /** Returns how the guest ended the sandbox's last machine. */
  lastEndOf(id: string): Promise<MachineEnd | undefined>
  find(id: string): Machine | undefined
  /** Resources that the machine has used so far: bytes of its disk and of its network, read and written. */
  usageOf(machine: Machine): { cpuMs: number; diskBytes: number; networkBytes: number }
  /**
   * Memory of a booted machine that takes none of the host. Undefined for machines on a template's memory, whose
   * kernels overwrite freed memory themselves.
   */
  untouchedMib(machine: Machine): Promise<number | undefined>
  /** Memory that machines may still take before the host's kernel has to kill something. */
  availableMemoryMib(): number
  /** "background" lets all other processes on the host go first. */
  setUrgency(machine: Machine, urgency: "normal" | "background"): void
  /** Without a machine it ends every process of the sandbox's, in case a crash left no other trace of one. */
  kill(machine: Machine | { id: string }): Promise<void>
  /** Slots that no new sandbox may get: processes of the host use their addresses. */
  slotsInUse(): number[]
  growDisk(machine: Machine, diskMib: number): Promise<void>
  diagnose(machine: Machine): Promise<{ qemu: string; console: string }>
}

/** A template being made: its guest has booted. Disposal removes what was not published. */
export interface TemplateDraft extends AsyncDisposable {
  readonly guest: Guest
  diagnose(): Promise<{ qemu: string; console: string }>
  /** Freezes the machine, ends it, and makes the template visible. */
  publish(): Promise<Template>
}

export interface Templates {
  /** Its memory is loaded, so that its first clone does not wait for that. */
  find(spec: TemplateSpec): Promise<Template | undefined>
  get(id: string): Promise<Template>
  begin(spec: TemplateSpec): Promise<TemplateDraft>
  /** Finished templates: their space, their image, and when each was last requested (time of day). */
  measure(): Promise<{ id: string; mib: number; imageHash: string; lastUsedMs: number }[]>
  /** Returns false if the template was requested within that time; it stays. */
  remove(id: string, options: { unusedForMs: number }): Promise<boolean>
  /** Removes unfinished templates of an earlier run, and their machines. */
  removeUnfinished(): Promise<void>
}

export interface Disks {
  /** Makes the sandbox's disk, empty on the template's. */
  createSandbox(options: { id: string; template: Template }): Promise<void>
  removeSandbox(id: string): Promise<void>
  /** Changes with every write to the disk. */
  stampOf(id: string): Promise<string>
  listSandboxes(): Promise<string[]>
  freeMib(): Promise<number>
  /**
   * Space taken by the sandbox's directory (`all`), by all but the memory saved while it is stopped (`counted`), or by
   * the disk and other files that its QEMU writes (`overlay`: almost exact; 0 if there is no disk).
   */
  measureMib(id: string, part: "all" | "counted" | "overlay"): Promise<number>
}

/**
 * Copies of sandboxes: memory, device state and disk of the same moment, each in its own directory, laid out like a
 * sandbox's. This run of the daemon makes drafts; a copy is finished only if its manifest proves it.
 */
export interface Snapshots {
  /** Makes an empty draft; `saveSnapshot` may write the memory into it. */
  begin(id: string): Promise<unknown>
  /** Copies the disk of a running sandbox as it is now, so that `capture` has less to do. */
  copyAhead(options: { id: string; sandboxId: string; signal: AbortSignal }): Promise<void>
  /** Adds the sandbox's disk, which must stand still, and the saved memory of a stopped sandbox. */
  capture(options: {
    id: string
    sandboxId: string
    storedMemory: boolean
    signal: AbortSignal
  }): Promise<void>
  /** Turns the draft into a finished copy. */
  publish(id: string): Promise<{ bytes: number }>
  abandon(id: string): Promise<void>
  /**
   * Copies a finished snapshot into a sandbox that has no directory yet; throws if the snapshot is incomplete. With
   * `draft` it copies a draft, whose last sandbox gets the draft's own files.
   */
  place(options: {
    id: string
    sandboxId: string
    draft?: { isLast: boolean }
    signal: AbortSignal
  }): Promise<{ hasMemory: boolean }>
  remove(id: string): Promise<void>
  /** Ids of the finished copies. */
  list(): Promise<string[]>
  removeUnfinished(): Promise<void>
}

/** Records kept beside the disks, from which a lost database is rebuilt, and directories unknown to the database. */
export interface KeptRows {
  /** Writes the record beside the disk. Returns false if the directory no longer exists. */
  write(kind: "sandbox" | "snapshot", id: string, text: string): Promise<boolean>
  /** Moves a directory out of the way, with the reason; returns its new path. */
  setAside(kind: "sandbox" | "snapshot", id: string, reason: string): Promise<string>
  /**
   * Templates below directories that were set aside or are not in `known`. Returns undefined if one of them is
   * unreadable.
   */
  templatesUnderUnknown(known: ReadonlySet<string>): string[] | undefined
}

/** `usedMib` is its space on the host, `installedAt` an ISO time. */
export type InstalledImage = {
  name: string
  hash: string
  diskMib: number
  usedMib: number
  kernelVersion: string
  installedAt: string
}

/** A backup of the installation in progress. */
export interface BackupDraft {
  /** Path for the copied database. */
  readonly databasePath: string
  /** True if the backup lies on the data directory's file system. */
  readonly isBeside: boolean
  /** True once a write found no space there. */
  readonly isFull: boolean
  /** Adds a sandbox from the draft of its copy. */
  addSandbox(id: string, draft: string): Promise<void>
  addSnapshot(id: string): Promise<void>
  commonMib(): Promise<number>
  /** Wraps work that writes to the backup: if it finds no space, its error names the backup's disk. */
  writing<Result>(work: () => Promise<Result>): Promise<Result>
  /** Adds everything that is neither in the database nor part of one sandbox. */
  addCommon(): Promise<void>
  remove(kind: "sandbox" | "snapshot", id: string): Promise<void>
  /** Completes the backup; before this it does not count as one. */
  finish(about: { version: string; mark: string }): Promise<{ bytes: number }>
  abandon(): Promise<void>
}

export interface Backups {
  /** Refuses a directory that is not empty. */
  begin(directory: string): Promise<BackupDraft>
}

export interface Images {
  /** The current image of every name, sorted by name. */
  list(): Promise<InstalledImage[]>
  readImage(name: string): Promise<Image>
  /** The kernel whose modules the image holds; without an image, the current one. */
  readKernel(image?: { name: string; hash: string }): Promise<Kernel>
  /**
   * Throws if an image is missing or known to be damaged. `isReadThrough` waits until the whole image has been checked.
   */
  checkImage(image: { name: string; hash: string }, options?: { isReadThrough: boolean }): Promise<void>
  /** Kernel for a boot that repairs the root filesystem. */
  repairKernel(kernel: Kernel): Promise<Kernel & { arguments: string[] } & Disposable>
  /**
   * Removes images (and their kernels) that nothing depends on and that are not used next; returns the removed paths.
   */
  removeUnused(neededImages: ReadonlySet<string>): Promise<string[]>
}

export interface GuestProcess {
  readonly started: Promise<{ pid: number }>
  /** The guest may send more only as chunks are taken; ending the iteration discards the rest. */
  readonly output: AsyncIterable<OutputChunk>
  /** The command's end; its output may still be unread. Rejects with an `AppError`. */
  readonly result: Promise<Exited>
  /** Resolves when the bytes have been sent. Input of a command that has ended is dropped. */
  write(bytes: Uint8Array): Promise<void>
  endInput(): void
  signal(name: string): void
  resize(size: TerminalSize): void
  /** Kills the command and everything it started; `result` settles when that is done. */
  kill(): void
}

/** The host's end of a stream to a session, a file or a connection in the guest. */
export interface GuestStream {
  readonly output: AsyncIterable<Uint8Array>
  write(bytes: Uint8Array): Promise<void>
  endInput(): void
  /** Aborts the operation: detaches from a session, drops an upload, resets a connection. */
  close(): void
}

export interface GuestSession extends GuestStream {
  readonly opened: Promise<{ id: string; name: string | null }>
  readonly result: Promise<SessionEnd>
  resize(size: TerminalSize): void
  signal(name: string): void
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

export interface Guest {
  readonly closed: Promise<{ reason: string }>
  /**
   * Streams that are open, and when the last one was opened or closed (by the monotonic clock). `nextTimer` does not
   * count.
   */
  readonly activity: { openStreams: number; lastAtMs: number }
  waitReady(options: { deadlineMs: number; resync?: boolean }): Promise<unknown>
  ping(options: { deadlineMs: number }): Promise<Pick<Pong, "personalised" | "rootReadOnly" | "repair">>
  personalise(identity: GuestIdentity, options: { deadlineMs: number }): Promise<unknown>
  /** For a guest that stays who it is. A clone and a copy have an identity already, and it is another's. */
  refresh(options: { deadlineMs: number }): Promise<unknown>
  /** With `untouchedMib` it overwrites free memory except for that much; an older agent does not. */
  quiesce(options: { deadlineMs: number; untouchedMib?: number | undefined }): Promise<unknown>
  /** Time until the first program in the guest has a timer due, or null if none has. An older agent refuses. */
  nextTimer(options: { deadlineMs: number }): Promise<{ dueMs: number | null }>
  /** Syncs the filesystems and trims deleted data, as far as `budgetMs` allows. `unavailable`: the agent cannot. */
  trim(options: { budgetMs: number; untouchedMib?: number | undefined; deadlineMs: number }): Promise<unknown>
  exec(command: GuestCommand): GuestProcess

  openSession(start: SessionStart): GuestSession
  /** Starts a session without an attached client. */
  startSession(start: SessionStart, options: { deadlineMs: number }): Promise<{ session: string }>
  attachSession(options: { session?: string; tty: Terminal }): GuestSession
  sessions(options: { deadlineMs: number }): Promise<SessionRecord[]>
  killSession(session: string, signal: string, options: { deadlineMs: number }): Promise<unknown>
  /** Reads the kept output of a session. An older agent refuses. */
  readSession(session: string): GuestStream & { readonly result: Promise<unknown> }
  /** Reports each named session that ends, once. */
  watch(onEnded: (ended: SessionNotice) => void): void
  /** Shuts the guest down in good order, then ends the machine. */
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
  listFiles(path: string, options: { deadlineMs: number }): Promise<FileList>
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

  dial(port: number): GuestConnection
  ports(options: { deadlineMs: number }): Promise<ListeningPort[]>

  close(): void
}

/** A sandbox as the network knows it. Sandboxes with the same `owner` can reach each other. */
export type Attachment = { id: string; slot: number; owner: string; hostname: string; policy: NetPolicy }

/**
 * The network of sandboxes. A machine's TAP device carries nothing before `linkUp`, and afterwards only what its
 * attachment permits; without an attachment it carries nothing.
 */
export interface Network {
  /** Returns those of the networks that no policy can open, because they are entirely internal. */
  closedAmong(cidrs: string[]): string[]
  identityOf(sandbox: { id: string; slot: number }): GuestNetwork
  linkUp(sandbox: { id: string; slot: number }): Promise<void>
  /** Repeat it to change the policy or name of an attached sandbox. */
  attach(attachment: Attachment): Promise<void>
  detach(id: string): Promise<void>
  /** Attaches exactly these sandboxes, whatever was attached before. */
  resync(attachments: Attachment[]): Promise<void>
  /** Repairs rules that others have changed, until the signal aborts. */
  guard(signal: AbortSignal, onRepair: (what: string, error?: unknown) => void): Promise<void>
  close(): Promise<void>
}

export type Host = {
  machines: Machines
  templates: Templates
  disks: Disks
  snapshots: Snapshots
  keptRows: KeptRows
  backups: Backups
  images: Images
  /** Null if machines use QEMU's own network, which reaches nothing. */
  network: Network | null
}
