/** A user's secrets, with the events of their changes. */

import { checkSecret } from "../rules/input.ts"
import type { SecretRecord } from "../store/secrets.ts"
import type { Account } from "../store/users.ts"
import type { Core } from "./core.ts"

export async function listSecrets({ store }: Pick<Core, "store">, account: Account): Promise<SecretRecord[]> {
  return store.secrets.list(account.id)
}

export async function setSecret(
  { store, events }: Pick<Core, "store" | "events">,
  account: Account,
  { name, value }: { name: string; value: string },
): Promise<SecretRecord> {
  checkSecret({ name, value })
  const secret = await store.secrets.set(account.id, name, value)
  events.record({ type: "secret.set", userId: account.id, meta: { by: "user", name } })
  return secret
}

export async function deleteSecret(
  { store, events }: Pick<Core, "store" | "events">,
  account: Account,
  name: string,
): Promise<void> {
  await store.secrets.remove(account.id, name)
  events.record({ type: "secret.deleted", userId: account.id, meta: { by: "user", name } })
}
