/** The guest of a machine: commands, sessions, files and ports in it. */

import type {
  AbnormalEnd,
  GuestAnswer,
  GuestFile,
  GuestOpening,
  GuestOpenings,
  GuestQuestion,
  GuestQuestions,
  GuestServiceState,
  MemoryKill,
  OutputChunk,
  ProcessAttach,
  ProcessAttached,
  ProcessNotice,
  ProcessOutcome,
  ProcessRecord,
  ProcessSignal,
  ProcessStart,
  TerminalSize,
} from "@bhatti/contract/guest"

export interface Guest {
  readonly processes: GuestProcesses
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
  /** Reports each named process that ends, once. */
  watch(watcher: GuestWatcher): void
  close(): void
}

export type GuestWatcher = {
  onNamedEnded(end: ProcessNotice): void
  /** A process has ended for another reason than its own. Only agents of generation 3 report it. */
  onAbnormalEnd(end: AbnormalEnd): void
  /** The guest's kernel has killed a process for lack of memory. */
  onMemoryKill(kill: MemoryKill): void
  /** A service has ended many times in a row. */
  onServiceFailing(state: GuestServiceState): void
}

export type GuestStreams = {
  readFile: GuestDownload
  writeFile: GuestTransfer
  readArchive: GuestTransfer
  writeArchive: GuestTransfer
  dial: GuestConnection
}

/** Commands in the guest. An older agent refuses much of this as `unavailable`, with a hint. */
export interface GuestProcesses {
  /** Starts a command with its caller as the driver. */
  start(start: ProcessStart): GuestProcess
  startDetached(
    start: ProcessStart,
    options: { deadlineMs: number },
  ): Promise<{ process: ProcessRecord; isNew: boolean }>
  attach(options: ProcessAttach): GuestProcess
  list(options: { deadlineMs: number }): Promise<ProcessRecord[]>
  get(process: string, options: { deadlineMs: number }): Promise<ProcessRecord>
  /** Resolves with the record of the ended process. */
  wait(process: string): Closing<ProcessRecord>
  signal(process: string, signal: ProcessSignal, options: { deadlineMs: number }): Promise<unknown>
  /** Bytes before `at` that the program has taken already are skipped; `close` ends the input behind them. */
  input(process: string, options: { at?: number; close?: boolean }): GuestInput
  resize(process: string, size: TerminalSize, options: { deadlineMs: number }): Promise<unknown>
  /** A process that runs is a conflict. */
  forget(process: string, options: { deadlineMs: number }): Promise<unknown>
}

export interface Closing<Result> {
  readonly result: Promise<Result>
  close(): void
}

/** A client of a command. */
export interface GuestProcess {
  readonly attached: Promise<ProcessAttached>
  /** The guest may send more only as chunks are taken; ending the iteration discards the rest. */
  readonly output: AsyncIterable<OutputChunk>
  /** The end of this attachment; its output may still be unread. Rejects with an `AppError`. */
  readonly result: Promise<ProcessOutcome>
  /** Resolves when the bytes have been sent. Input of a command that has ended is dropped. */
  write(bytes: Uint8Array): Promise<void>
  endInput(): void
  signal(signal: ProcessSignal): void
  resize(size: TerminalSize): void
  /** Kills the command and everything it started; `result` settles when that is done. */
  kill(by: string): void
  /** Detaches; `onDisconnect` decides what becomes of the command. */
  leave(): void
}

/** Input of a request that is not the driver's. */
export interface GuestInput extends Closing<{ input: number }> {
  write(bytes: Uint8Array): Promise<void>
  endInput(): void
}

/** The host's end of a stream to a file or a connection in the guest. */
export interface GuestStream {
  readonly output: AsyncIterable<Uint8Array>
  write(bytes: Uint8Array): Promise<void>
  endInput(): void
  /** Aborts the operation: drops an upload, resets a connection. */
  close(): void
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
