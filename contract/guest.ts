/** Plain values that the host and a guest exchange: every layer of the host uses these types. */

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
}

export type TerminalSize = { rows: number; cols: number }
export type Terminal = TerminalSize & { term?: string }

export type GuestCommand = {
  argv: string[]
  env?: Record<string, string>
  cwd?: string
  user?: string
  stdin?: boolean
  tty?: Terminal
}

export type OutputChunk = { channel: "stdout" | "stderr"; bytes: Uint8Array }
export type Exited = { exitCode: number; signal: string | null }

/** `argv` defaults to the user's login shell. */
export type SessionStart = Omit<GuestCommand, "argv" | "stdin" | "tty"> & {
  argv?: string[]
  name?: string
  tty: Terminal
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

export type SessionEnd = ({ state: "ended" } & Exited) | { state: "detached" } | { state: "taken_over" }

/** A named session that has ended. */
export type SessionNotice = { session: string; name: string } & Exited

export type GuestFile = {
  name: string
  size: number
  mode: string
  type: "file" | "directory" | "symlink" | "other"
  owner: string
  group: string
  modifiedUnixMs: number
  target: string | null
  /** Differs whenever the content may differ. Null if the guest's agent is too old to say. */
  version: string | null
}

/** Bytes of a file: from `offset`, at most `limit`. */
export type FileSection = { offset?: number | undefined; limit?: number | undefined }

/** `isTruncated` tells that the directory has more entries. */
export type FileList = { files: GuestFile[]; isTruncated: boolean }

/** Numeric user and group ids in the guest. */
export type GuestOwner = { uid: number; gid: number }

export type ListeningPort = { port: number; address: string }

export type Pong = {
  version: string
  personalised: boolean
  bootFailures: string[]
  /** True if its kernel refuses writes to the root filesystem. An older agent omits it. */
  rootReadOnly: boolean
  /** e2fsck's exit code and last output, if the guest was booted for a repair. */
  repair: { exitCode: number; output: string } | undefined
}
