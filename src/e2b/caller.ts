/** The client of a call of e2b's agent. */

import type { Core } from "../core/core.ts"
import type { Account } from "../store/users.ts"

/** Its account, its sandbox, and the user of the guest that it names. */
export type Caller = { core: Core; account: Account; sandbox: string; user: string | undefined }
