/** The guest of a machine: commands, sessions, files and ports in it. */

import type {
  Exited,
  GuestAnswer,
  GuestCommand,
  GuestFile,
  GuestOpening,
  GuestOpenings,
  GuestQuestion,
  GuestQuestions,
  OutputChunk,
  SessionEnd,
  SessionNotice,
  SessionRecord,
  SessionStart,
  Terminal,
  TerminalSize,
} from "@bhatti/contract/guest"

export interface Guest extends GuestSessions {
  readonly closed: Promise<{ reason: string }>
  /**
   * Streams that are open, and when the last one was opened or closed (by the monotonic clock). `nextTimer` does not
   * count.
   */
  readonly activity: { openStreams: number; lastAtMs: number }
  waitReady(options: { deadlineMs: number; resync?: boolean }): Promise<unknown>
  ask<Op extends keyof GuestQuestions>(
    question: GuestQuestion<Op>,
    options: { deadlineMs: number },
  ): Promise<GuestAnswer<Op>>
  open<Op extends keyof GuestOpenings>(opening: GuestOpening<Op>): GuestStreams[Op]
  exec(command: GuestCommand): GuestProcess
  close(): void
}

export type GuestStreams = {
  readFile: GuestDownload
  writeFile: GuestTransfer
  readArchive: GuestTransfer
  writeArchive: GuestTransfer
  dial: GuestConnection
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
