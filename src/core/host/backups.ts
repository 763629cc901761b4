/** Backups of the installation. */

/** A backup of the installation in progress. */
export interface BackupDraft extends AsyncDisposable {
  /** True if the backup lies on the data directory's file system. */
  readonly isBeside: boolean
  /** True once a write found no space there. */
  readonly isFull: boolean
  add(part: BackupPart): Promise<void>
  /** Returns the size of the part `common`. */
  commonMib(without: readonly string[]): Promise<number>
  /** Adds the database, which `copy` writes into the given file, and removes the parts that `gone` names. */
  addDatabase(copy: (file: string) => Promise<CopiedDatabase>): Promise<CopiedDatabase>
  /** Completes the backup; before this it does not count as one, and disposal removes it. */
  finish(about: { version: string }): Promise<{ bytes: number }>
}

export type BackupPart =
  /** `draft` is the draft of the sandbox's copy. */
  | { kind: "sandbox"; id: string; draft: string }
  | { kind: "snapshot"; id: string }
  /** Everything that is neither in the database nor part of one sandbox, except for the templates `without`. */
  | { kind: "common"; without: readonly string[] }

export type CopiedDatabase = { mark: string; gone: { kind: "sandbox" | "snapshot"; id: string }[] }

export interface Backups {
  /** Refuses a directory that is not empty. */
  begin(directory: string): Promise<BackupDraft>
}
