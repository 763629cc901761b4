/**
 * What the command line needs from the daemon's side of the program. `main.ts` fills it in with lazy imports, so that
 * ordinary commands load none of it and this folder depends on none of it.
 */

import type { Config } from "../contract/config.ts"
import type { User, UserLimits } from "../contract/user.ts"

export type ServeOptions = {
  configPath?: string
  dataDir?: string
  listen?: string
  accel?: "auto" | "kvm" | "tcg"
}

export type InitOptions = {
  dataDir: string
  cacheDir: string
  writeClientConfig: boolean
  probe: boolean
  listen?: string
  /** An image to install besides the default one and those that are installed. */
  image?: string
  report: (line: string) => void
}

export type StoredEvent = {
  id: string
  at: string
  type: string
  userId: string | null
  sandboxId: string | null
  sandboxName: string | null
  meta: Record<string, string | number | boolean | null>
}

export type Recovered = {
  /** Where the database comes from: `in place`, the path of a copy, or `new`. */
  database: string
  /** Put back from what lay beside their disks. */
  sandboxes: { id: string; name: string; user: string }[]
  snapshots: { id: string; name: string; user: string }[]
  /** Made anew, with the keys that replace the lost ones. */
  users: { name: string; key: string }[]
  /** Findings that an operator should look at. */
  notes: string[]
}

export type BackupResult = {
  directory: string
  sandboxes: number
  snapshots: number
  bytes: number
  /** Names of everything that could not be copied. */
  failed: { what: string; reason: string }[]
}

/** Faults of a data directory, or findings worth a look, each with the next step. */
export type Finding = { status: "warn" | "fail"; text: string; fix: string }

export interface UserStore {
  users: {
    create(input: { name: string } & Partial<UserLimits>): Promise<{ user: User; key: string }>
    list(): Promise<User[]>
    edit(name: string, limits: Partial<UserLimits>): Promise<User>
    rotateKey(name: string): Promise<{ user: User; key: string }>
    remove(name: string): Promise<void>
  }
  events: {
    list(
      filter: { type?: string | undefined; sandbox?: string | undefined; since?: string | undefined },
      limit: number,
    ): Promise<StoredEvent[]>
  }
  close(): Promise<void>
}

export interface Operator {
  /** Returns when the daemon was told to stop and has. */
  serve(options: ServeOptions): Promise<void>
  init(options: InitOptions): Promise<void>
  openStore(options: { dataDir: string }): Promise<UserStore>
  /** Makes the database fit its data directory again. */
  recover(options: { dataDir: string; id: string | undefined; dropSecrets: boolean }): Promise<Recovered>
  /** A backup of the whole installation, while it runs or not. */
  backUp(options: {
    dataDir: string
    directory: string
    report: (line: string) => void
  }): Promise<BackupResult>
  /** A data directory from a backup. */
  restore(options: { from: string; dataDir: string }): Promise<{ at: string; version: string }>
  /** Looks at a data directory and changes nothing. */
  examine(options: { dataDir: string }): Promise<Finding[]>
  /** What this host cannot promise, as far as it is known without a daemon. */
  warnings(options: { dataDir: string }): Promise<string[]>
  /** The daemon's configuration as `serve` would read it. */
  loadConfig(options: { dataDir: string }): Promise<Config>
}
