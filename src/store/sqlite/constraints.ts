/** Names of the database's constraints. SQLite reports a violated one by its columns, and only in a message's text. */

import type { AppError } from "@bhatti/contract/errors"

export const constraints = {
  api_keys_key_hash: "api_keys.key_hash",
  api_keys_user_name: "api_keys.user_id, api_keys.name",
  users_name: "users.name",
  users_key_hash: "users.key_hash",
  sandboxes_user_name: "sandboxes.user_id, sandboxes.name",
  sandboxes_slot: "sandboxes.slot",
  secrets_user_name: "secrets.user_id, secrets.name",
  published_ports_alias: "published_ports.alias",
  image_shares_image_user: "image_shares.image_id, image_shares.user_id",
  images_user_name: "images.user_id, images.name",
  registry_logins_user_host: "registry_logins.user_id, registry_logins.host",
  snapshots_user_name: "snapshots.user_id, snapshots.name",
  build_results_user_key: "build_results.user_id, build_results.key",
}

/** Waits for the statement; throws `refusal` if that constraint refused it. */
export async function refusedBy<T>(
  constraint: keyof typeof constraints,
  statement: Promise<T>,
  refusal: () => AppError,
): Promise<T> {
  return await statement.catch((error: unknown) => {
    const isViolated =
      error instanceof Error && error.message === `UNIQUE constraint failed: ${constraints[constraint]}`
    throw isViolated ? refusal() : error
  })
}
