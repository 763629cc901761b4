/** The guest of a machine: commands, sessions, files and ports in it. */

import type {
  Exited,
  FileList,
  FileSection,
  GuestCommand,
  GuestFile,
  GuestIdentity,
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

export interface Guest extends GuestSessions, GuestFiles {
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
  /** Shuts the guest down in good order, then ends the machine. */
  shutdown(options: { deadlineMs: number }): Promise<unknown>
  dial(port: number): GuestConnection
  ports(options: { deadlineMs: number }): Promise<ListeningPort[]>
  close(): void
}

/** Commands with a terminal, which run on without a client. */
export interface GuestSessions {
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
}

export interface GuestFiles {
  readFile(options: { path: string } & FileSection): GuestDownload
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
