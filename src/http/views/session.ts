/** A session on the wire. */

import type { SessionRecord } from "@bhatti/contract/guest"
import type { Session } from "@bhatti/contract/session"

export function viewSession(session: SessionRecord): Session {
  return {
    session_id: session.id,
    name: session.name,
    argv: session.argv,
    tty: true,
    running: session.state === "running",
    exit_code: session.exitCode,
    signal: session.signal,
    pid: session.pid,
    attached: session.attached,
    created_at: new Date(session.createdUnixMs).toISOString(),
  }
}
