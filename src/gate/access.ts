/**
 * The rights that a request needs of a key which may do less than its user. A surface names them for each of its
 * operations; an operation without an entry is for users' own keys alone. The sandboxes that a key does not have are
 * hidden by the store, which returns only those that exist for an account.
 */

import { AppError } from "@bhatti/contract/errors"
import type { Permission } from "@bhatti/contract/permission"
import { checkPermitted } from "../core/permitted.ts"
import type { Account } from "../store/users.ts"

export type Access =
  /** It tells nothing about anybody's sandboxes. */
  | "any key"
  /** `of` a sandbox, or of what the key sees; or of the whole account: then a key for some sandboxes is refused. */
  | { can: Permission; of: "sandbox" | "account" }

export function checkAccess(account: Pick<Account, "scope">, access: Access | undefined): void {
  const { scope } = account
  if (!scope || access === "any key") return
  if (access === undefined) {
    throw new AppError("forbidden", "only a user's own key may do this", { reason: "scope" })
  }
  checkPermitted(account, access.can)
  if (access.of === "account" && scope.sandboxIds !== null) {
    throw new AppError("forbidden", "a key for some sandboxes only may not do this", {
      reason: "scope",
      hint: "its user can make a key for all sandboxes",
    })
  }
}
