/** The client of a call of e2b's agent. */

import type { Core } from "../core/core.ts"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Account } from "../store/users.ts"

/** Its account, its sandbox, and the user of the guest that it names. */
export type Caller = {
  core: Core
  account: Account
  sandbox: SandboxRecord["id"]
  imageConfig: SandboxRecord["imageConfig"]
  user: string | undefined
}

/** The user that e2b's templates have; ours call theirs otherwise. */
const templateUser = "user"

/** Returns undefined for the sandbox's own user. */
export function userNamed(name: string | null | undefined): string | undefined {
  return name === undefined || name === null || name === "" || name === templateUser ? undefined : name
}
