/** Plain values that the host and a guest exchange: every layer of the host uses these types. */

import type { ImageConfig } from "./image-config.ts"

export type GuestNetwork = {
  mac: string
  address: string
  prefix: number
  gateway: string
  dns: string[]
  mtu: number
}

/** Everything that gives a guest its identity. Entropy and time are added when it is sent. */
export type GuestIdentity = {
  hostname: string
  machineId: string
  env: Record<string, string>
  network: GuestNetwork | null
  growDisk: boolean
  /** Its memory is the sandbox's first: no earlier boot can have run a command. */
  isNew?: boolean
  /** The defaults of commands in an image that is not ours. */
  image?: Pick<ImageConfig, "user" | "workdir" | "env">
}

/**
 * A clone that is pending is ready only after `startClone`. `knowsImages`: it has taken over the defaults of the image;
 * an older agent does not.
 */
export type Personalised = { bootId: string; isPending: boolean; knowsImages: boolean }

/** A hook of a clone that failed, with the end of its output. */
export type HookFailure = { hook: string; reason: string; output: string }

export type TerminalSize = { rows: number; cols: number }
export type Terminal = TerminalSize & { term?: string }

/** Bytes of each stream since the process began. A terminal has `stdout` only. */
export type StreamOffsets = { stdout: number; stderr: number }

/** A command to start. `argv` defaults to the user's login shell, in a terminal only. */
export type ProcessStart = {
  argv?: string[]
  env?: Record<string, string>
  cwd?: string
  user?: string
  /** Without it the command reads end of file. */
  stdin?: boolean
  tty?: Terminal
  name?: string
  /** A start with the key of an earlier one gives the same process, from `from` on. */
  key?: string
  /** Time since the key was first sent. */
  elapsedMs?: number
  from?: StreamOffsets
  /** Decides what happens `graceMs` after the driver has left. */
  onDisconnect: "kill" | "keep"
  graceMs?: number
  /** How long the result and the output are kept after the end. */
  retainMs?: number
  /** Kept output per stream. */
  ringBytes?: number
  timeoutMs?: number
}

/** `process` is an id, or the name of a running process or else of the last ended one. */
export type ProcessAttach = {
  process: string
  mode: "drive" | "watch"
  from?: StreamOffsets
  sinceMs?: number
  /** False: only the output so far. */
  follow?: boolean
  tty?: TerminalSize
  /** Random name of a driver, the same over all its connections. */
  writer?: string
}

/** Where a client joins. `id` is undefined for a command of an earlier agent, which nobody can attach to again. */
export type ProcessAttached = {
  id: string | undefined
  name: string | null
  pid: number | undefined
  isNew: boolean
  /** Where the output begins that follows. */
  from: StreamOffsets
  /** Bytes of input that the program has taken; undefined if its agent does not count them. */
  input: number | undefined
  /** Bytes of these from drivers with this one's key or `writer`; undefined if they are not counted. */
  written: number | undefined
}

/**
 * `skipped` bytes of the channel, which a watcher has missed, come before these. `isExtra` marks text for the terminal
 * at this place, which is no output and is not counted.
 */
export type OutputChunk = {
  channel: "stdout" | "stderr"
  bytes: Uint8Array
  skipped?: number
  isExtra?: true
}

/** A process that the guest's kernel killed for lack of memory; `session` leads its session, 0: unknown. */
export type MemoryKill = {
  pid: number
  name: string
  session: number
  inCgroup: boolean
  anonKib: number
  fileKib: number
  shmemKib: number
  memoryKib: number
  unixMs: number
}

/** Circumstances of the end of a process with another exit code than 0. */
export type EndDetail = { memoryKills: MemoryKill[]; diskFull: "space" | "inodes" | undefined }

export const endReasons = ["exited", "signal", "time_limit", "out_of_memory", "disconnected"] as const

export type ProcessEnd = {
  exitCode: number
  signal: string | null
  reason: (typeof endReasons)[number]
  /** On whose behalf the signal was sent. */
  by: string | null
  detail: EndDetail | null
}

/** How a client's attachment ends. */
export type ProcessOutcome =
  | { state: "ended"; ended: ProcessEnd }
  | { state: "left" }
  /** Another driver has attached. */
  | { state: "taken_over" }

export type ProcessRecord = {
  id: string
  name: string | null
  pid: number
  argv: string[]
  user: string
  cwd: string
  tty: boolean
  ended: ProcessEnd | null
  onDisconnect: "kill" | "keep"
  driven: boolean
  watchers: number
  inputOpen: boolean
  createdUnixMs: number
  endedUnixMs: number | null
  /** The oldest kept byte of each stream, and how many there were. */
  output: { stdout: KeptOutput; stderr: KeptOutput }
}
export type KeptOutput = { first: number; total: number }

export type RestartPolicy = "always" | "on-failure" | "never"

/**
 * A program that the guest keeps running. `after` names those that start before it. `program` is what a shell in `argv`
 * runs, if that is one: it must be there.
 */
export type GuestService = {
  name: string
  argv: string[]
  program?: string | undefined
  user: string | null
  cwd: string | null
  restart: RestartPolicy
  after: readonly string[]
}

/** `failure` is why its program could not be started last, `ended` how it ended last. */
export type GuestServiceState = Pick<GuestService, "name" | "argv" | "restart"> & {
  state: "running" | "backing_off" | "ended" | "stopped"
  restarts: number
  process: string | null
  ended: ProcessEnd | null
  failure: string | null
  /** A `StartReason`; null without one. */
  failureReason: string | null
  /** It has ended many times in a row. */
  isFailing: boolean
  retryMs: number | null
}

/** A named process that has ended. */
export type ProcessNotice = { process: string; name: string; ended: ProcessEnd }

/** A process that has ended for another reason than its own. */
export type AbnormalEnd = {
  process: string
  name: string | null
  program: string
  pid: number
  ended: ProcessEnd
}

/** The processes that a signal goes to; by default the terminal's foreground group, or the command's group. */
export type SignalScope = "session" | "foreground" | "group"
export type ProcessSignal = { signal: string; scope?: SignalScope; by?: string }

export type GuestFile = {
  name: string
  size: number
  mode: string
  type: "file" | "directory" | "symlink" | "other"
  owner: string
  group: string
  modifiedUnixMs: number
  target: string | null
  /** Bytes of the disk that it takes: a sparse file's are less than its size. Undefined in listings. */
  allocated?: number
  /** Extended attributes `user.*`; undefined in listings and if there are none. */
  attributes?: GuestAttributes
  /** Differs whenever the content may differ. Null if the guest's agent is too old to say. */
  version: string | null
}

/** Values of extended attributes, by name. */
export type GuestAttributes = Record<string, Uint8Array>

/** Bytes of a file: from `offset`, at most `limit`. */
export type FileSection = { offset?: number | undefined; limit?: number | undefined }

/** `isTruncated` tells that the directory has more entries. */
export type FileList = { files: GuestFile[]; isTruncated: boolean }

/** Numeric user and group ids in the guest. */
export type GuestOwner = { uid: number; gid: number }

export type ListeningPort = { port: number; address: string }

/** A watch and the number of the last event that its reader has. */
export type WatchPlace = { watch: string; after: number }

export const fileEventTypes = ["create", "write", "remove", "rename", "chmod", "lost"] as const

export type FileEvent = {
  type: (typeof fileEventTypes)[number]
  /** Relative to the watched directory, which is ".". */
  path: string
  /** The new path of a renamed file. */
  to: string | null
  isDirectory: boolean
  /** Why events were lost. */
  reason: string | null
  /** Numbers of events ascend by one. */
  sequence: number
}

/** `next` is the number of the last event. `ended` says why none follows. */
export type FileEvents = { events: FileEvent[]; next: number; ended: string | null }

/** Requests that a guest answers once: their fields besides the name, and the answer, unknown where it says nothing. */
export type GuestQuestions = {
  /** Does not count as use of the sandbox. */
  ping: { fields: object; answer: Pong }
  /** Gives the guest its identity, fresh randomness and the time. If this fails, the guest must not be used. */
  personalise: { fields: { identity: GuestIdentity }; answer: Personalised }
  /** Starts those that are not there yet. Each question about services is answered with the states of all. */
  startServices: { fields: { services: readonly GuestService[] }; answer: GuestServiceState[] }
  listServices: { fields: object; answer: GuestServiceState[] }
  controlService: {
    fields: { service: string; action: "start" | "stop" | "restart" }
    answer: GuestServiceState[]
  }
  /** Makes the services those given: others end, the same run on. A refusal changes nothing. */
  setServices: { fields: { services: readonly GuestService[] }; answer: GuestServiceState[] }
  /** Starts the init of the image; what is started afterwards runs in its namespaces. */
  startInit: { fields: object; answer: unknown }
  /** Lets the programs of a clone run on, and runs its hooks. Returns the hooks that failed. */
  startClone: { fields: object; answer: HookFailure[] }
  /**
   * Sends fresh randomness and the time to a guest that keeps its identity. A clone and a copy have an identity
   * already, and it is another's.
   */
  refresh: { fields: object; answer: unknown }
  /**
   * Brings the guest to a frame boundary with its filesystems synced; no request may follow. With `untouchedMib` it
   * also overwrites free memory except for that much; an older agent does not. With `hold` its programs stand still
   * until `startClone`.
   */
  quiesce: {
    fields: { untouchedMib?: number | undefined; hold?: boolean | undefined }
    answer: unknown
  }
  /**
   * Time until the first program in the guest has a timer due, or null if none has. An older agent refuses. Does not
   * count as use of the sandbox.
   */
  nextTimer: { fields: object; answer: { dueMs: number | null } }
  /**
   * Syncs the filesystems and discards deleted blocks, as far as `budgetMs` allows. `unavailable`: the agent cannot.
   * Does not count as use of the sandbox.
   */
  trim: { fields: { budgetMs: number; untouchedMib?: number | undefined }; answer: unknown }
  /** Begins to shut the guest down in good order; the machine ends afterwards. */
  shutdown: { fields: object; answer: unknown }
  ports: { fields: object; answer: ListeningPort[] }
  /** Looks up "user" or "user:group" in the guest. */
  findOwner: { fields: { owner: string }; answer: GuestOwner }
  listFiles: { fields: { path: string }; answer: FileList }
  statFile: { fields: { path: string }; answer: GuestFile }
  removeFile: { fields: { path: string; recursive: boolean }; answer: unknown }
  makeDirectory: {
    fields: { path: string; parents: boolean; mode: string; owner?: GuestOwner }
    answer: unknown
  }
  moveFile: { fields: { from: string; to: string }; answer: unknown }
  /** Sets and removes extended attributes of a file. Older agents answer `unavailable`. */
  setAttributes: { fields: { path: string; set: GuestAttributes; remove: string[] }; answer: unknown }
  /** Watches a directory from now on. Older agents answer `unavailable`. */
  openWatch: { fields: { path: string; recursive: boolean }; answer: { watch: string } }
  /** Confirms the events up to a number and returns those behind it. */
  readWatch: { fields: WatchPlace; answer: FileEvents }
  /**
   * Like `readWatch`, but waits until there are events; without any it returns when the guest is about to be saved.
   * Does not count as use of the sandbox.
   */
  awaitWatch: { fields: WatchPlace; answer: FileEvents }
  removeWatch: { fields: { watch: string }; answer: unknown }
}
export type GuestQuestion<Op extends keyof GuestQuestions> = { op: Op } & GuestQuestions[Op]["fields"]
export type GuestAnswer<Op extends keyof GuestQuestions> = GuestQuestions[Op]["answer"]

/** Requests that open a stream of bytes: their fields besides the name. */
export type GuestOpenings = {
  readFile: { path: string } & FileSection
  /** The file exists once the stream's result resolves; otherwise it is unchanged. */
  writeFile: {
    path: string
    mode?: string
    size?: number
    parents?: boolean
    owner?: GuestOwner
    /** Set beside those of the replaced file. */
    attributes?: GuestAttributes
  }
  /** A tar stream of a file or directory. */
  readArchive: {
    path: string
    /** Packs holes as such; an older agent packs zeros. */
    sparse?: boolean
    /** Keeps file capabilities and access lists too; an older agent does not. */
    exact?: boolean
  }
  /**
   * Unpacks the tar stream that is written to it below a directory. With `exact` entries keep their own owners. `root`
   * replaces the first part of each name. An older agent ignores both.
   */
  writeArchive: { path: string; owner?: GuestOwner; exact?: boolean; root?: string }
  /** A connection to a TCP port. */
  dial: { port: number }
}
export type GuestOpening<Op extends keyof GuestOpenings> = { op: Op } & GuestOpenings[Op]

export type Pong = {
  version: string
  personalised: boolean
  bootFailures: string[]
  /** True if its kernel refuses writes to the root filesystem. An older agent omits it. */
  rootReadOnly: boolean
  /** e2fsck's exit code and last output, if the guest was booted for a repair. */
  repair: { exitCode: number; output: string } | undefined
}
