/** Sessions in a sandbox: finds or starts the session that a client names, lists and signals sessions. */

import { AppError } from "@bhatti/contract/errors"
import type { SessionRecord, Terminal } from "@bhatti/contract/guest"
import type { Account } from "../store/users.ts"
import { answerDeadlineMs, awake, awakeGuest } from "./awake.ts"
import type { ForRequest } from "./core.ts"
import { findSandbox } from "./find.ts"
import type { GuestSession, GuestStream } from "./host.ts"

export type ShellRequest = {
  /** Id or name of a session; if undefined, the newest detached session, else a new one. */
  session: string | undefined
  forceNew: boolean
  tty: Terminal
}

export async function openShell(
  core: ForRequest,
  account: Account,
  nameOrId: string,
  request: ShellRequest,
): Promise<{ session: GuestSession; isNew: boolean }> {
  const record = await findSandbox(core, account, nameOrId)
  const guest = await awake(core, record, "shell")
  await account.confirm?.()
  const meta = { by: "user" }
  core.events.record({ type: "shell.session", userId: account.id, sandbox: record, meta })
  if (request.session !== undefined) {
    return { session: guest.attachSession({ session: request.session, tty: request.tty }), isNew: false }
  }
  const detached = request.forceNew
    ? undefined
    : newestDetached(await guest.sessions({ deadlineMs: answerDeadlineMs }))
  if (detached)
    return { session: guest.attachSession({ session: detached.id, tty: request.tty }), isNew: false }
  return { session: guest.openSession({ tty: request.tty }), isNew: true }
}

/** Skips named sessions such as `init`, which are attached to only by name. */
function newestDetached(sessions: SessionRecord[]): SessionRecord | undefined {
  return sessions
    .filter(({ state, attached, name }) => state === "running" && !attached && name === null)
    .sort((one, other) => other.createdUnixMs - one.createdUnixMs)[0]
}

export async function listSessions(
  core: ForRequest,
  account: Account,
  nameOrId: string,
): Promise<SessionRecord[]> {
  const guest = await awakeGuest(core, account, nameOrId, "ps")
  return guest.sessions({ deadlineMs: answerDeadlineMs })
}

export async function killSession(
  core: ForRequest,
  account: Account,
  nameOrId: string,
  options: { session: string; signal: string },
): Promise<void> {
  const guest = await awakeGuest(core, account, nameOrId, "kill")
  try {
    await guest.killSession(options.session, options.signal, { deadlineMs: answerDeadlineMs })
  } catch (error) {
    if (!(error instanceof AppError && error.code === "not_found")) throw error
    throw error.but({ subject: { kind: "session", sandbox: nameOrId } })
  }
}

/** Reads the kept output of a session, also after its end, without disturbing attached clients. */
export async function readSessionOutput(
  core: ForRequest,
  account: Account,
  nameOrId: string,
  session: string,
): Promise<GuestStream & { result: Promise<unknown> }> {
  const guest = await awakeGuest(core, account, nameOrId, "logs")
  const known = await guest.sessions({ deadlineMs: answerDeadlineMs })
  if (!known.some(({ id, name }) => id === session || name === session)) {
    throw new AppError("not_found", `sandbox "${nameOrId}" has no session "${session}"`, {
      subject: { kind: "session", sandbox: nameOrId },
      hint: known.length === 0 ? "no session was started since it booted" : undefined,
    })
  }
  return guest.readSession(session)
}
