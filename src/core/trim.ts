/** Having a guest give back what it has deleted, so that it stays neither on the host nor in a copy. */

import { AppError } from "../contract/errors.ts"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Core } from "./core.ts"
import type { Guest } from "./host.ts"

/** Beyond the time it is given: writing out files, and a guest that is busy. */
const slackMs = 5000

/** As far as it comes within the time; what is left is given back another time. An agent that cannot is no trouble. */
export async function trimGuest(
  core: Core,
  record: SandboxRecord,
  guest: Guest,
  { budgetMs }: { budgetMs: number },
): Promise<void> {
  try {
    await guest.trim({ budgetMs, deadlineMs: budgetMs + slackMs })
  } catch (error) {
    if (!(error instanceof AppError)) throw error
    core.log.info({ sandbox: record.id, error }, "a guest did not give back what it has deleted")
  }
}
