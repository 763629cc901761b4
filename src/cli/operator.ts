/**
 * The daemon-side functions that the command line needs. `main.ts` provides them with lazy imports, so that
 * ordinary commands load none of them and this folder depends on none of them.
 */

import type { Config } from "@bhatti/contract/config"
import type { User } from "@bhatti/contract/user"
import type { Check } from "../lib/preflight.ts"

export type ServeOptions = {
  configPath?: string
  dataDir?: string
  listen?: string
  accel?: "auto" | "kvm" | "tcg"
}

export type InitOptions = {
  dataDir: string
  cacheDir: string
  /** Writes the caller's `~/.bhatti/config.yaml` with a key of the user `admin`, unless it has a working one. */
  writeClientConfig: boolean
  /** Probes again whether KVM works. */
  probe: boolean
  listen?: string
  /** An image to install in addition to the default one and the installed ones. */
  image?: string
  /** Installs that image and leaves everything else as it is. */
  imageOnly: boolean
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
  /** Source of the database: `in place`, the path of a copy, or `new`. */
  database: string
  /** Restored from the files beside their disks. */
  sandboxes: { id: string; name: string; user: string }[]
  snapshots: { id: string; name: string; user: string }[]
  /** Users created again, with the keys that replace the lost ones. */
  users: { name: string; key: string }[]
  /** Findings that an operator should look at. */
  notes: string[]
}

export type BackupResult = {
  directory: string
  sandboxes: number
  snapshots: number
  bytes: number
  /** Names of all parts that could not be copied. */
  failed: { what: string; reason: string }[]
}

export type UserLimits = {
  maxSandboxes: number
  maxCpus: number
  maxMemoryMib: number
  maxDiskMib: number
}

export type UserRecord = UserLimits & {
  id: User["id"]
  name: string
  createdAt: string
  sandboxes: number
  diskUsedMib: number
}

export interface UserStore {
  users: {
    create(input: { name: string } & Partial<UserLimits>): Promise<{ user: UserRecord; key: string }>
    list(): Promise<UserRecord[]>
    edit(name: string, limits: Partial<UserLimits>): Promise<UserRecord>
    rotateKey(name: string): Promise<{ user: UserRecord; key: string }>
    remove(name: string): Promise<void>
  }
  /** `users` are named ones, or with an empty list everybody. */
  images: {
    share(shared: { owner: string; name: string; users: readonly string[] }): Promise<void>
    unshare(shared: { owner: string; name: string; users: readonly string[] }): Promise<void>
  }
  events: {
    list(
      /** `userId: null` selects everybody's events, and the host's own. */
      filter: {
        userId: null
        type?: string | undefined
        sandbox?: string | undefined
        since?: string | undefined
      },
      limit: number,
    ): Promise<StoredEvent[]>
  }
  close(): Promise<void>
}

export interface Operator {
  /** Returns after the daemon was told to stop and has stopped. */
  serve(options: ServeOptions): Promise<void>
  init(options: InitOptions): Promise<void>
  openStore(options: { dataDir: string }): Promise<UserStore>
  /** Makes the database match its data directory again. */
  recover(options: { dataDir: string; id: string | undefined; dropSecrets: boolean }): Promise<Recovered>
  /** Backs up the whole installation, running or not. */
  backUp(options: {
    dataDir: string
    directory: string
    report: (line: string) => void
  }): Promise<BackupResult>
  /** Restores a data directory from a backup. */
  restore(options: {
    from: string
    dataDir: string
    report: (line: string) => void
  }): Promise<{ at: string; version: string }>
  /** Checks this host and a data directory, and changes nothing. */
  /** `daemonUrl` is where commands of this user go. */
  preflight(options: { dataDir: string; daemonUrl?: string }): Promise<Check[]>
  /** Guarantees that this host cannot give, as far as it is known without a daemon. */
  warnings(options: { dataDir: string }): Promise<string[]>
  /** The daemon's configuration as `serve` would read it. */
  loadConfig(options: { dataDir: string }): Promise<Config>
}
