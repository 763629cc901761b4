/** Makes a guest trim deleted data, so that it takes no space on the host or in a copy. */

import { AppError } from "@bhatti/contract/errors"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Core } from "./core.ts"
import type { Guest } from "./host.ts"

/** Margin on top of the budget, for syncing files and for a busy guest. */
const slackMs = 5000

/** Trims as far as the time allows; a later call does the rest. An agent without support is not an error. */
export async function trimGuest(
  core: Pick<Core, "log">,
  record: SandboxRecord,
  guest: Guest,
  { budgetMs, untouchedMib }: { budgetMs: number; untouchedMib?: number | undefined },
): Promise<void> {
  try {
    await guest.ask({ op: "trim", budgetMs, untouchedMib }, { deadlineMs: budgetMs + slackMs })
  } catch (error) {
    if (!(error instanceof AppError)) throw error
    core.log.info({ sandbox: record.id, error }, "a guest did not trim deleted data")
  }
}
