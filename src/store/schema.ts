/** The tables, as Kysely sees them. Times are ISO 8601 text in UTC, JSON columns are text. */

import type { Selectable } from "kysely"

export type Schema = {
  users: UsersTable
  sandboxes: SandboxesTable
  secrets: SecretsTable
  published_ports: PublishedPortsTable
  snapshots: SnapshotsTable
  events: EventsTable
  installation: InstallationTable
}

/** A table with a single row. */
export type InstallationTable = {
  id: string
  /** Changes so far of what `changes.ts` counts. */
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

export type SandboxesTable = {
  id: string
  /** Null: it waits in the pool for whoever creates one next. */
  user_id: string | null
  name: string
  /** JSON of `SandboxState`. */
  state: string
  /** Number among all sandboxes of the host, used again after it is free: user id of its QEMU. */
  slot: number
  template_id: string | null
  image_name: string
  image_hash: string
  cpus: number
  memory_mib: number
  disk_mib: number
  /** Blocks of the host's disk, as measured last. */
  used_mib: number
  /** JSON object. */
  env: string
  /** JSON array: the secrets it was created with. Their values are only in `secrets`. */
  secret_names: string
  /** JSON object. */
  labels: string
  /** 0 or 1. */
  keep_hot: number
  /** 0 or 1. */
  allow_cold: number
  /** JSON of `NetPolicy`. */
  net_policy: string
  address: string | null
  /** Idle seconds until it is paused, instead of the host's; null: the host's. */
  warm_after_sec: number | null
  /** Paused seconds until it is written to disk, instead of the host's; null: the host's. */
  cold_after_sec: number | null
  /** Runs at each boot of its machine; null: nothing does. */
  boot_script: string | null
  /** 1: others are being made together with it, and it goes with them if one of them comes to nothing. */
  in_batch: number
  /** Why it last booted from its disk instead of going on from its memory; null: it did not. */
  boot_reason: string | null
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
  image_name: string
  image_hash: string
  cpus: number
  memory_mib: number
  disk_mib: number
  /** JSON object: what a sandbox made from it takes over. */
  inherited: string
  /** 0 or 1. */
  has_memory: number
  bytes: number
  created_at: string
}

export type EventsTable = {
  /** UUID of version 7, so that the order of ids is the order of events. */
  id: string
  at: string
  type: string
  /** Whose it is; null: the host's own. */
  user_id: string | null
  sandbox_id: string | null
  /** As it was called then. */
  sandbox_name: string | null
  /** JSON object. */
  meta: string
}

export type UserRow = Selectable<UsersTable>
export type SandboxRow = Selectable<SandboxesTable>
export type PublishedPortRow = Selectable<PublishedPortsTable>
export type SnapshotRow = Selectable<SnapshotsTable>
export type EventRow = Selectable<EventsTable>
export type NewSandboxRow = Omit<Selectable<SandboxesTable>, "slot" | "template_id" | "address">
