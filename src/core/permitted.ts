/** Rights that an operation needs besides those of its surface. */

import { AppError } from "@bhatti/contract/errors"
import type { Permission } from "@bhatti/contract/permission"
import type { Account } from "../store/users.ts"

/** Throws if the account's key lacks the permission. */
export function checkPermitted({ scope }: Pick<Account, "scope">, permission: Permission): void {
  if (!scope || scope.can.includes(permission)) return
  throw new AppError("forbidden", `this key lacks the permission "${permission}"`, {
    reason: "scope",
    hint: `it has: ${scope.can.join(", ")}; its user can make another`,
  })
}

/** A value that a sandbox is given can be read in it. */
export function checkSecretsPermitted(account: Pick<Account, "scope">, secrets: readonly string[]): void {
  if (secrets.length > 0) checkPermitted(account, "secrets")
}
