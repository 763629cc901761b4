/** Finds a user's sandbox by name or id. Other users' sandboxes do not exist for them. */

import { AppError } from "@bhatti/contract/errors"
import { suggest } from "../lib/suggest.ts"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Account } from "../store/users.ts"
import type { Core } from "./core.ts"

export async function findSandbox(
  core: Pick<Core, "store">,
  account: Account,
  nameOrId: string,
): Promise<SandboxRecord> {
  const record = await core.store.sandboxes.find(account, nameOrId)
  if (record) return record
  const names = (await core.store.sandboxes.listOf(account)).map(({ name }) => name)
  const similar = suggest(nameOrId, names)
  throw noSandbox(nameOrId, similar && `did you mean ${similar}?`)
}

/** Lists sandboxes that have all the labels, written `key=value`. */
export async function listSandboxes(
  core: Pick<Core, "store">,
  account: Account,
  labels: readonly string[],
): Promise<SandboxRecord[]> {
  const all = await core.store.sandboxes.listOf(account)
  return all.filter((record) => {
    const own = Object.entries(record.labels).map(([key, value]) => `${key}=${value}`)
    return labels.every((label) => own.includes(label))
  })
}

export function noSandbox(nameOrId: string, hint?: string): AppError {
  const subject = { kind: "sandbox", name: nameOrId } as const
  return new AppError("not_found", `no sandbox named "${nameOrId}"`, { hint, subject })
}
