/** The tables, as Kysely sees them. Times are ISO 8601 text in UTC, JSON columns are text. */

import type { Generated, Selectable } from "kysely"

export type Schema = {
  users: UsersTable
  api_keys: ApiKeysTable
  sandboxes: SandboxesTable
  secrets: SecretsTable
  published_ports: PublishedPortsTable
  snapshots: SnapshotsTable
  events: EventsTable
  socket_tickets: SocketTicketsTable
  template_use: TemplateUseTable
  images: ImagesTable
  image_shares: ImageSharesTable
  tasks: TasksTable
  registry_logins: RegistryLoginsTable
  build_steps: BuildStepsTable
  build_results: BuildResultsTable
  installation: InstallationTable
  host_clock: HostClockTable
}

/** A table with at most one row, which belongs to this host. */
export type HostClockTable = {
  boot_id: string
  /** The kernel's monotonic clock at that boot, and the host's clock at the same moment. */
  boot_ms: number
  host_ms: number
}

/** A table with a single row. */
export type InstallationTable = {
  id: string
  /** Number of changes that `changes.ts` has counted. */
  counter: number
  /** Recipient that secrets are encrypted for; null until a key was opened. */
  recipient: string | null
}

export type UsersTable = {
  id: string
  name: string
  /** SHA-256 of the API key, hexadecimal. The key itself is stored nowhere. */
  key_hash: string
  max_sandboxes: number
  max_cpus: number
  max_memory_mib: number
  /** Quota for all sandboxes and snapshots together; 0: none. */
  max_disk_mib: number
  created_at: string
}

/** Keys that may do less than their user. */
export type ApiKeysTable = {
  id: string
  user_id: string
  name: string
  /** SHA-256 of the key, hexadecimal. */
  key_hash: string
  /** JSON of `Scope`. */
  scope: string
  /** In seconds since 1970, by the database's clock; null: never. */
  expires_at: number | null
  created_at: string
}

export type SandboxesTable = {
  id: string
  /** Null: a pooled sandbox without an owner. */
  user_id: string | null
  name: string
  /** JSON of `SandboxState`. */
  state: string
  /** Number unique among all sandboxes of the host, reused once free; determines the user id of its QEMU. */
  slot: number
  template_id: string | null
  /** JSON of `SandboxSpec`; null for a pooled sandbox. */
  spec: string | null
  /** Blocks on the host's disk, as last measured. */
  used_mib: Generated<number>
  address: string | null
  /** 1: part of an unfinished batch; it is removed if another part fails. */
  in_batch: Generated<number>
  /** Why it last booted from disk instead of resuming from memory; null if it did not. */
  boot_reason: string | null
  /** JSON of `Lifetime`; null: it has no end. */
  lifetime: Generated<string | null>
  /** When its lifetime has to be looked at, by the host's clock; null: not until something changes. */
  due_ms: Generated<number | null>
  /** JSON of `Stopped`; null: it is not stopped, or nobody has looked since it is. */
  stopped: Generated<string | null>
  created_at: string
}

export type SecretsTable = {
  user_id: string
  name: string
  /** The value, encrypted with age. */
  ciphertext: Uint8Array
  created_at: string
  updated_at: string
}

export type PublishedPortsTable = {
  id: string
  sandbox_id: string
  port: number
  alias: string
  created_at: string
}

export type SnapshotsTable = {
  id: string
  user_id: string
  name: string
  state: string
  source_id: string
  source_name: string
  template_id: string
  /** JSON of `SandboxSpec`, which its copies inherit. */
  spec: string
  /** 0 or 1. */
  has_memory: number
  bytes: number
  created_at: string
}

/** Images that users have pulled or imported; those of the host itself have no row. */
export type ImagesTable = {
  id: string
  user_id: string
  name: string
  /** As it was asked for, with the registry; null: imported. */
  reference: string | null
  /** Digest of the index or manifest that the reference named; null: imported. */
  index_digest: string | null
  manifest_digest: string | null
  platform: string
  /** The image's name among the host's files, and the hash of its disk. */
  disk_name: string
  disk_hash: string
  disk_mib: number
  /** Blocks on the host's disk. */
  bytes: number
  /** JSON of `ImageConfig`. */
  config: string
  /** While its template is being made it is `preparing`; creates work already. */
  state: string
  /** 1: shared with every user. */
  is_shared: Generated<number>
  created_at: string
}

/** Users that an image is shared with by name. */
export type ImageSharesTable = { image_id: string; user_id: string }

export type TasksTable = {
  id: string
  user_id: string
  kind: string
  /** Its object, in its owner's words. */
  subject: string
  state: string
  /** JSON of `TaskProgress`. */
  progress: string
  /** JSON of what it has made; null until it is done. */
  result: string | null
  /** JSON of `TaskError`; null unless it failed. */
  error: string | null
  /** Space that it may take until it ends, which counts in its owner's quota. */
  reserved_mib: Generated<number>
  created_at: string
  ended_at: string | null
}

export type RegistryLoginsTable = {
  user_id: string
  host: string
  username: string
  /** The password or token, encrypted with age. */
  ciphertext: Uint8Array
  created_at: string
}

/** Disks after steps of builds. */
export type BuildStepsTable = {
  id: string
  user_id: string
  /** Digest of the step, of all before it and of what it copies. */
  key: string
  /** `creating` until its disk is complete, then `ready`. */
  state: string
  /** The template below its disk, and the image below that. */
  template_id: string
  image_name: string
  image_hash: string
  disk_mib: number
  /** Blocks on the host's disk. */
  bytes: number
  used_at: string
}

/** Disks that builds have ended with, by what decided their content. */
export type BuildResultsTable = { user_id: string; key: string; disk_name: string }

/** Templates on the host that one account alone uses. */
export type TemplateUseTable = {
  id: string
  user_id: string
  /** Blocks on the host's disk, as last measured. */
  used_mib: number
}

export type SocketTicketsTable = {
  /** SHA-256 of the ticket, hexadecimal. */
  id: string
  user_id: string
  /** The user's key when it was issued; it opens nothing with another. */
  key_hash: string
  /** In seconds since 1970, by the database's clock. */
  expires_at: number
}

export type EventsTable = {
  /** UUID version 7: ids sort by time. */
  id: string
  at: string
  type: string
  /** The owner; null: an event of the host itself. */
  user_id: string | null
  sandbox_id: string | null
  /** The sandbox's name at that time. */
  sandbox_name: string | null
  /** JSON object. */
  meta: string
}

export type UserRow = Selectable<UsersTable>
export type SandboxRow = Selectable<SandboxesTable>
export type PublishedPortRow = Selectable<PublishedPortsTable>
export type SnapshotRow = Selectable<SnapshotsTable>
export type ImageRow = Selectable<ImagesTable>
export type TaskRow = Selectable<TasksTable>
export type BuildStepRow = Selectable<BuildStepsTable>
export type EventRow = Selectable<EventsTable>
