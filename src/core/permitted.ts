/** Rights that an operation needs besides those of its surface. */

import { AppError } from "@bhatti/contract/errors"
import type { Permission } from "@bhatti/contract/permission"
import type { Account } from "../store/users.ts"

export function isPermitted({ scope }: Pick<Account, "scope">, permission: Permission): boolean {
  return !scope || scope.can.includes(permission)
}

/** Throws if the account's key lacks the permission. */
export function checkPermitted(account: Pick<Account, "scope">, permission: Permission): void {
  const { scope } = account
  if (!scope || isPermitted(account, permission)) return
  throw new AppError("forbidden", `this key lacks the permission "${permission}"`, {
    reason: "scope",
    hint: `it has: ${scope.can.join(", ")}; its user can make another`,
  })
}

/** A value that a sandbox is given can be read in it. */
export function checkSecretsPermitted(account: Pick<Account, "scope">, secrets: readonly string[]): void {
  if (secrets.length > 0) checkPermitted(account, "secrets")
}
