/** Questions that an account may put to its sandbox's guest as they are. */

import type { GuestAnswer, GuestQuestion } from "@bhatti/contract/guest"
import { checkGuestPath } from "../rules/input.ts"
import type { Account } from "../store/users.ts"
import { answerDeadlineMs, awakeGuest } from "./awake.ts"
import type { ForRequest } from "./core.ts"

/** The name of each in `why` and in events, and how long its answer may take. */
const kinds = {
  ports: { what: "ports", deadlineMs: answerDeadlineMs },
  statFile: { what: "a file operation", deadlineMs: answerDeadlineMs },
  findOwner: { what: "a file operation", deadlineMs: answerDeadlineMs },
  moveFile: { what: "a file operation", deadlineMs: answerDeadlineMs },
  /** Listing a hundred thousand entries takes an emulated guest a while. */
  listFiles: { what: "a file operation", deadlineMs: 60_000 },
  removeFile: { what: "a file operation", deadlineMs: 300_000 },
}

export async function askGuest<Op extends keyof typeof kinds>(
  core: ForRequest,
  account: Account,
  nameOrId: string,
  question: GuestQuestion<Op>,
): Promise<GuestAnswer<Op>> {
  for (const field of ["path", "from", "to"]) {
    const path = (question as Record<string, unknown>)[field]
    if (typeof path === "string") checkGuestPath(path)
  }
  const { what, deadlineMs } = kinds[question.op]
  const guest = await awakeGuest(core, account, nameOrId, what)
  return guest.ask(question, { deadlineMs }).catch(async (error: unknown) => {
    throw await core.endings.explain(guest, error, { during: "before it answered" })
  })
}
