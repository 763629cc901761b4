/** Lists the listening ports inside a sandbox. */

import type { Account } from "../store/users.ts"
import { answerDeadlineMs, awakeGuest } from "./awake.ts"
import type { ForRequest } from "./core.ts"

export async function listPorts(
  core: ForRequest,
  account: Account,
  nameOrId: string,
): Promise<{ port: number; address: string }[]> {
  return (await awakeGuest(core, account, nameOrId, "ports")).ask(
    { op: "ports" },
    { deadlineMs: answerDeadlineMs },
  )
}
