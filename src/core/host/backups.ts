/** Backups of the installation. */

/** A backup of the installation in progress. */
export interface BackupDraft {
  /** True if the backup lies on the data directory's file system. */
  readonly isBeside: boolean
  /** True once a write found no space there. */
  readonly isFull: boolean
  /** Adds a sandbox from the draft of its copy. */
  addSandbox(id: string, draft: string): Promise<void>
  addSnapshot(id: string): Promise<void>
  commonMib(): Promise<number>
  /** Adds the database, which `copy` writes into the given file. */
  addDatabase<Result>(copy: (file: string) => Promise<Result>): Promise<Result>
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
