/** A user's logins at registries, with the events of their changes. */

import { registryHost } from "../lib/registry-hosts.ts"
import type { RegistryCredential, RegistryLogin } from "../store/registry-logins.ts"
import type { Account } from "../store/users.ts"
import type { Core } from "./core.ts"
import { isPermitted } from "./permitted.ts"

export async function listLogins({ store }: Pick<Core, "store">, account: Account): Promise<RegistryLogin[]> {
  return await store.registryLogins.list(account.id)
}

/** Returns the stored login; undefined if there is none, or if the account's key may not use it. */
export async function loginAt(
  { store }: Pick<Core, "store">,
  account: Account,
  host: string,
): Promise<RegistryCredential | undefined> {
  return isPermitted(account, "secrets") ? await store.registryLogins.reveal(account.id, host) : undefined
}

export async function logIn(
  { store, events }: Pick<Core, "events" | "store">,
  account: Account,
  host: string,
  credential: RegistryCredential,
): Promise<RegistryLogin> {
  const login = await store.registryLogins.set(account.id, registryHost(host), credential)
  events.record({ type: "registry.login", userId: account.id, meta: { by: "user", registry: login.host } })
  return login
}

export async function logOut(
  { store, events }: Pick<Core, "events" | "store">,
  account: Account,
  host: string,
): Promise<void> {
  await store.registryLogins.remove(account.id, registryHost(host))
  events.record({ type: "registry.logout", userId: account.id, meta: { by: "user", registry: host } })
}
