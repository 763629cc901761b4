/** The tables, as Kysely sees them. Times are ISO 8601 text in UTC, JSON columns are text. */

import type { Generated, Insertable, Selectable } from "kysely"

export type Schema = {
  users: UsersTable
  sandboxes: SandboxesTable
  secrets: SecretsTable
  published_ports: PublishedPortsTable
}

export type UsersTable = {
  id: string
  name: string
  /** SHA-256 of the API key, hexadecimal. The key itself is stored nowhere. */
  key_hash: string
  max_sandboxes: number
  max_cpus: number
  max_memory_mib: number
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
  net_policy: Generated<string>
  address: string | null
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

export type UserRow = Selectable<UsersTable>
export type SandboxRow = Selectable<SandboxesTable>
export type PublishedPortRow = Selectable<PublishedPortsTable>
export type NewSandboxRow = Omit<Insertable<SandboxesTable>, "slot" | "net_policy" | "address"> & {
  net_policy: string
}
