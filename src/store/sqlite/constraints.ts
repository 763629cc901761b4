/** Names of the database's constraints. SQLite reports a violated one by its columns, and only in a message's text. */

const columnsOf = {
  users_name: "users.name",
  users_key_hash: "users.key_hash",
  sandboxes_user_name: "sandboxes.user_id, sandboxes.name",
  sandboxes_slot: "sandboxes.slot",
  secrets_user_name: "secrets.user_id, secrets.name",
  published_ports_alias: "published_ports.alias",
  snapshots_user_name: "snapshots.user_id, snapshots.name",
} as const

export type Constraint = keyof typeof columnsOf

export const constraints: Readonly<Record<Constraint, string>> = columnsOf

/** Returns whether that constraint refused the statement. */
export function violates(error: unknown, constraint: Constraint): boolean {
  return error instanceof Error && error.message === `UNIQUE constraint failed: ${columnsOf[constraint]}`
}
