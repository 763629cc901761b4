/** A session on the wire. */

import type { ProcessRecord } from "@bhatti/contract/guest"
import type { Session } from "@bhatti/contract/session"

export function viewSession(session: ProcessRecord): Session {
  return {
    session_id: session.id,
    name: session.name,
    argv: session.argv,
    tty: true,
    running: !session.ended,
    exit_code: session.ended?.exitCode ?? null,
    signal: session.ended?.signal ?? null,
    pid: session.pid,
    attached: session.driven,
    created_at: new Date(session.createdUnixMs).toISOString(),
  }
}
