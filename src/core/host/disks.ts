/** Disks of sandboxes, the copies that are made of sandboxes, and records kept beside both. */

import type { Template } from "./templates.ts"

export interface Disks {
  /** Makes the sandbox's disk, empty on the template's; for a fork, which brings the disk, only a place for it. */
  createSandbox(options: { id: string; template: Template; isForked?: boolean }): Promise<void>
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
  commit(id: string): Promise<{ bytes: number }>
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
  /** Removes a finished copy, or a draft. */
  remove(id: string): Promise<void>
  /** Ids of the finished copies. */
  list(): Promise<string[]>
  removeUnfinished(): Promise<void>
}

/** Records kept beside the disks, from which a lost database is rebuilt, and directories unknown to the database. */
export interface KeptRows {
  /** Writes the record beside the disk. Returns false if the directory no longer exists. */
  write(kind: "sandbox" | "snapshot", id: string, text: string): Promise<boolean>
  /** Moves a directory out of the way, with the reason; returns words for people about where it is. */
  setAside(kind: "sandbox" | "snapshot", id: string, reason: string): Promise<string>
  /**
   * Templates below directories that were set aside or are not in `known`. Returns undefined if one of them is
   * unreadable.
   */
  templatesUnderUnknown(known: ReadonlySet<string>): string[] | undefined
}
