/** A user's keys that may do less than the user, with the events of their changes. */

import { AppError } from "@bhatti/contract/errors"
import { limits } from "@bhatti/contract/limits"
import { Permission } from "@bhatti/contract/permission"
import { suggest } from "../lib/suggest.ts"
import { checkKeyName } from "../rules/input.ts"
import type { ApiKeyRecord } from "../store/api-keys.ts"
import type { Account } from "../store/users.ts"
import type { Core } from "./core.ts"
import { findSandbox } from "./find.ts"

export type CreateKey = {
  name?: string | undefined
  can: readonly string[]
  /** Names or ids; undefined: all of the user's. */
  sandboxes?: readonly string[] | undefined
  expiresInSec?: number | undefined
}

/** With the sandboxes' names now; null: destroyed. */
export type ApiKey = ApiKeyRecord & { sandboxes: { id: string; name: string | null }[] | null }

type Parts = Pick<Core, "events" | "keys" | "store">

export async function createKey(
  core: Parts,
  account: Account,
  { name, can, sandboxes, expiresInSec }: CreateKey,
): Promise<{ apiKey: ApiKey; key: string }> {
  if (name !== undefined) checkKeyName(name)
  const permissions = Permission.array().min(1).safeParse(can)
  if (!permissions.success)
    throw new AppError("invalid", `a key has permissions among: ${Permission.options.join(", ")}`)
  if (expiresInSec !== undefined && !(expiresInSec >= 1 && expiresInSec <= limits.keyLifeSecMax))
    throw new AppError("invalid", `a key expires in 1 to ${limits.keyLifeSecMax} seconds`)
  const records = sandboxes && (await Promise.all(sandboxes.map((one) => findSandbox(core, account, one))))
  const sandboxIds = records ? [...new Set(records.map(({ id }) => id))] : null
  const scope = { can: [...new Set(permissions.data)], sandboxIds }
  const { record, key } = await core.store.apiKeys.add(account.id, { name, scope, expiresInSec })
  const meta = { by: "user", key: record.name, can: scope.can.join(",") }
  core.events.record({ type: "key.created", userId: account.id, meta })
  return { apiKey: (await described(core, account, [record]))[0] as ApiKey, key }
}

export async function listKeys(core: Pick<Core, "store">, account: Account): Promise<ApiKey[]> {
  return await described(core, account, await core.store.apiKeys.list(account.id))
}

/** Ends all that is open with the key before it returns. */
export async function revokeKey(core: Parts, account: Account, nameOrId: string): Promise<void> {
  const removed = await core.store.apiKeys.remove(account.id, nameOrId)
  if (!removed) {
    const names = (await core.store.apiKeys.list(account.id)).map(({ name }) => name)
    const similar = suggest(nameOrId, names)
    throw new AppError("not_found", `no key named "${nameOrId}"`, {
      hint: similar === undefined ? undefined : `did you mean ${similar}?`,
    })
  }
  await core.keys.look()
  const meta = { by: "user", key: removed.name }
  core.events.record({ type: "key.revoked", userId: account.id, meta })
}

async function described(
  core: Pick<Core, "store">,
  account: Account,
  records: readonly ApiKeyRecord[],
): Promise<ApiKey[]> {
  const names = new Map(
    (await core.store.sandboxes.listOf(account)).map(({ id, name }) => [String(id), name]),
  )
  return records.map((record) => ({
    ...record,
    sandboxes: record.scope.sandboxIds?.map((id) => ({ id, name: names.get(id) ?? null })) ?? null,
  }))
}
